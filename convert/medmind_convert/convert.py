"""From a source to finished GGUFs: the order of the steps, what is refused before the slow ones, and how they end."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind import artifacts, console, llama
from medmind.errors import MedmindError
from medmind_convert import gguf_file, one_pass, unfinished
from medmind_convert.check import Agreement
from medmind_convert.conversion import Conversion, Importance
from medmind_convert.gguf_file import Layout, sha256_text
from medmind_convert.imatrix import Weighting
from medmind_convert.one_pass import Step
from medmind_convert.partial import Partial, journal_of, states
from medmind_convert.quants import Quant
from medmind_convert.source import Source

_OLDER = 2.0
"""Seconds that FAT file systems can tell apart."""


@dataclass(frozen=True)
class Options:
    """How files are made.

    Attributes:
        force: replace files that exist.
        threads: for merging and quantizing; None takes all cores.
        provenance: whether the files say where they come from and carry digests; without, they are llama.cpp's own
            byte for byte.
        split_max: bytes of tensors in a shard at most; None for whole files.
        imatrix: importance of the columns, or None.
        weighting: what quantized files say of that.
        types: file type's name -> type of each tensor, where they are not llama.cpp's mixture.
    """

    force: bool = False
    threads: int | None = None
    provenance: bool = True
    split_max: int | None = None
    imatrix: Importance | None = None
    weighting: Weighting | None = None
    types: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True)
class Result:
    """One finished file.

    Attributes:
        file: its path; the first shard's of a split one.
        quant: its type.
        bytes: its size, over all shards.
        bits: bits per weight, over all tensors and without metadata.
        seconds: wall time of the pass, which made all the files of a call.
        shards: number of files.
    """

    file: Path
    quant: Quant
    bytes: int
    bits: float
    seconds: float
    shards: int = 1


def convert(
    source: Source | Conversion, quants: Sequence[Quant], options: Options | None = None
) -> tuple[list[Result], Agreement]:
    """Convert a source to each of the types in one pass over its weights.

    Every file appears under its name only when it is whole and its tokenizer checked. What is finished stays for the
    next start when the disk, the user or the system ends this one. The file of the type named last is the newest.

    Raises:
        MedmindError: refused before the work (file exists, disk too small, source unfit), a check failed, or an input
            changed; nothing stays then. Or reading, writing or libggml failed; what is finished stays.
    """
    clock = time.monotonic()
    options = options or Options()
    llama.package("convert")
    conversion = source if isinstance(source, Conversion) else Conversion(source)
    plans = {quant: _layouts(conversion, quant, options) for quant in quants}
    finals = {
        final: layout
        for quant, layouts in plans.items()
        for final, layout in zip(names(conversion.source, quant, len(layouts)), layouts, strict=True)
    }
    for quant, layouts in plans.items():
        if options.split_max is not None and (large := gguf_file.above(layouts, options.split_max)):
            console.note(f"{quant.name}: {large}")
    made_from = _made_from(conversion, options)
    begun = not options.force and any(journal_of(final).exists() for final in finals)
    for final, layout in finals.items():
        if not journal_of(final).exists() and not (begun and layout.sealed_in(final)):  # else it is this command's own
            artifacts.refuse_existing(final, force=options.force)
    _note_window(conversion)
    fresh = unfinished.make_directory(conversion.source.out)
    outputs: list[Partial] = []
    with unfinished.looked_after(outputs, fresh):
        _require_space(conversion.source.out, finals)
        for final, layout in finals.items():
            outputs.append(Partial(final, layout, made_from, begun=begun))
        agreement = _check(
            conversion, outputs, [len(layouts) for layouts in plans.values()], provenance=options.provenance
        )
        run_pass(
            conversion,
            conversion.steps(),
            [output for output in outputs if not output.published],
            threads=options.threads,
            inputs=made_from["inputs"],
            imatrix=options.imatrix,
        )
        for output in outputs:
            output.seal()
        for output in reversed(outputs):  # a split model loads from its first shard: that one is named last
            output.publish()
        for output in outputs:
            output.forget()
    now = time.time()
    for age, final in enumerate(reversed(finals)):  # the type named last is the newest: the one `medmind-chat` takes
        os.utime(final, (now, now - _OLDER * age))
    seconds = time.monotonic() - clock
    return [_result(conversion, quant, plans[quant], seconds) for quant in quants], agreement


def names(source: Source, quant: Quant, shards: int) -> list[Path]:
    """The files of one type; shards are named as llama.cpp wants them (`llama_split_path`)."""
    stem = f"{source.name}.{quant.name}"
    if shards == 1:
        return [source.out / f"{stem}.gguf"]
    return [source.out / f"{stem}-{number:05d}-of-{shards:05d}.gguf" for number in range(1, shards + 1)]


def _layouts(conversion: Conversion, quant: Quant, options: Options) -> list[Layout]:
    types = (options.types or {}).get(quant.name)
    if types is None:
        types = conversion.types(quant, imatrix=options.imatrix is not None)
    return conversion.layouts(
        quant.ftype, types, provenance=options.provenance, split_max=options.split_max, weighting=options.weighting
    )


def _made_from(conversion: Conversion, options: Options) -> dict[str, Any]:
    """What must be the same for a file to be resumed, beside its header."""
    llama_cpp = llama.package("convert")
    return {
        "inputs": states(conversion.inputs),
        "adapter": conversion.adapter_digest,
        "merged onto": conversion.onto,
        "importance": _digest(conversion, options.imatrix) if options.imatrix is not None else None,
        "quantizer": f"llama-cpp-python {llama_cpp.__version__}",
    }


def _digest(conversion: Conversion, imatrix: Importance) -> str:
    found = []
    for placement in conversion.architecture.placements:
        if placement.is_matrix:
            weights = importance_of(imatrix)(placement.target, placement.shape[1])
            found.append(b"-" if weights is None else weights.tobytes())
    return sha256_text(b"".join(found))


def importance_of(imatrix: Importance | None) -> Callable[[str, int], NDArray[np.float32] | None]:
    """As llama-quantize asks it: the embedding may be of another width, which says nothing of the matrix."""

    def ask(name: str, width: int) -> NDArray[np.float32] | None:
        if imatrix is None:
            return None
        try:
            found = imatrix.for_tensor(name, width)
        except MedmindError:
            if name != "token_embd.weight":
                raise
            return None
        if found is not None and not np.isfinite(found).all():
            raise MedmindError(f"the importance matrix holds NaN or infinity for {name}", "make it again")
        return found

    return ask


def _require_space(out: Path, finals: Mapping[Path, Layout]) -> None:
    """What lies in a partial file of the right size is on the disk already."""
    need = 0
    for final, layout in finals.items():
        partial = final.with_name(f".{final.name}.partial")
        held = partial.stat().st_size if partial.is_file() else 0
        need += layout.size - min(held, layout.size)
    artifacts.require_space(out, need, "the conversion")


def _check(conversion: Conversion, outputs: Sequence[Partial], shards: Sequence[int], *, provenance: bool) -> Agreement:
    """Load each file's header by llama.cpp and compare its tokenizer, before the hours that its weights may take."""
    try:
        return _agreement(conversion, outputs, shards)
    except MedmindError as error:
        if provenance:
            raise
        raise MedmindError(
            error.message,
            "with --no-provenance the file says of its tokenizer what llama.cpp's own converter says: leave it out",
        ) from error


def _agreement(conversion: Conversion, outputs: Sequence[Partial], shards: Sequence[int]) -> Agreement:
    agreement: Agreement | None = None
    start = 0
    for count in shards:
        files = [output.final if output.published else output.path for output in outputs[start : start + count]]
        if count == 1:
            agreement = conversion.check(files[0])
        else:
            with tempfile.TemporaryDirectory() as folder:  # llama.cpp finds shards by their names
                for output, file in zip(outputs[start : start + count], files, strict=True):
                    (Path(folder) / output.final.name).symlink_to(file.resolve())
                agreement = conversion.check(Path(folder) / outputs[start].final.name)
        start += count
    if agreement is None:
        raise ValueError("no type to convert to")
    return agreement


def run_pass(
    conversion: Conversion,
    steps: Iterable[Step],
    outputs: Sequence[Partial],
    *,
    threads: int | None,
    inputs: Mapping[str, list[int]],
    imatrix: Importance | None = None,
) -> None:
    """Bring every tensor into every file, with progress; see `one_pass.run`.

    Args:
        conversion: what is converted.
        steps: its tensors.
        outputs: the files.
        threads: None takes all cores.
        inputs: the state of the files that are read, as `partial.states` found it before.
        imatrix: importance of the columns, or None.

    Raises:
        MedmindError: also where one of the inputs has another state by now.
    """

    def unchanged(step: Step | None) -> None:
        files = conversion.inputs if step is None else [step.tensor.file]
        for file, state in states(files).items():
            if inputs[file] != state:
                raise MedmindError(f"{file} changed while it was converted", "start again when nothing writes to it")

    quantized = any(slot.kind.quantized for output in outputs for slot in output.layout.slots)
    what = " and ".join(["merging"] * bool(conversion.adapter) + ["quantizing"] * quantized) or "writing"
    with console.progress(what, conversion.architecture.parameters, "weights") as advance:
        one_pass.run(
            steps,
            outputs,
            importance=importance_of(imatrix),
            threads=threads or one_pass.cores(),
            advance=advance,
            after=unchanged,
        )
    unchanged(None)


def _result(conversion: Conversion, quant: Quant, layouts: Sequence[Layout], seconds: float) -> Result:
    bits = sum(slot.size for layout in layouts for slot in layout.slots) * 8 / conversion.architecture.parameters
    first = names(conversion.source, quant, len(layouts))[0]
    return Result(first, quant, sum(layout.size for layout in layouts), bits, seconds, len(layouts))


def _note_window(conversion: Conversion) -> None:
    window = conversion.architecture.window
    if window is not None:
        console.note(
            f"the base attends to {window} tokens back; llama.cpp's llama attends to all: "
            f"keep conversations below {window} tokens"
        )
