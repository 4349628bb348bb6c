"""From a source to finished GGUFs: the order of the steps, and what is refused before the slow ones.

Today: merge into one unquantized file, check it, let llama.cpp quantize that file once for each type.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmind import artifacts, base, console
from medmind.errors import MedmindError
from medmind_convert import adapter as adapters
from medmind_convert import architecture, gguf_file, tokenizer
from medmind_convert.check import Agreement, Expected
from medmind_convert.merge import merged_blocks
from medmind_convert.quantize import quantize
from medmind_convert.quants import Quant
from medmind_convert.source import Source
from medmind_convert.weights import Dtype, Tensor, open_tensors

_FLOAT: dict[str, Dtype] = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
_OLDER = 2.0
"""Seconds that FAT file systems can tell apart."""
_METADATA_ROOM = 4 << 20
"""Bytes allowed for metadata and tensor table beyond the vocabulary."""


@dataclass(frozen=True)
class Result:
    """One finished file.

    Attributes:
        file: its path.
        quant: its type.
        bytes: its size.
        bits: bits per weight, over all tensors and without metadata.
        seconds: wall time of its own step; a quantized file's does not count the merge it was made from.
    """

    file: Path
    quant: Quant
    bytes: int
    bits: float
    seconds: float


class Conversion:
    """A source, opened and found fit to convert: everything that can be refused from headers has been.

    Raises:
        MedmindError: the base is not what its config says, the adapter does not match it, or the tokenizer cannot be
            expressed.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.architecture = architecture.read(source.base.path)
        self.tensors = open_tensors(base.weight_files(source.base.path))
        shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        self.architecture.match(shapes, source.base.path)
        self.adapter = None
        if source.adapter is not None:
            self.adapter = adapters.load(source.adapter, shapes, tied=self.architecture.tied)
        self.adapter_digest = self.adapter.digest if self.adapter else None
        recorded = (source.manifest.get("adapter") or {}).get("digest")
        if recorded is not None and recorded != self.adapter_digest:
            raise MedmindError(
                f"the files in {source.adapter} are not those the run recorded",
                "copy the run again, or convert them as they are with --base and --adapter",
            )
        self.tokenizer = tokenizer.Tokenizer(tokenizer.directory(source.base.path, source.adapter))
        self.vocabulary = self.tokenizer.vocabulary(self.architecture.vocab)
        self.stops = tuple(dict.fromkeys((self.vocabulary.eos, *self.architecture.stop_ids)))

    @cached_property
    def expected(self) -> Expected:
        """What transformers makes of the held-out texts."""
        return Expected(self.tokenizer, self.source.heldout, self.source.system_prompt)

    @property
    def native(self) -> Dtype:
        """The base's own type, or F32 where it mixes several."""
        kinds = {self.tensors[p.source].dtype for p in self.architecture.placements if p.is_matrix}
        return kinds.pop() if len(kinds) == 1 else "F32"

    def estimate(self, quant: Quant) -> int:
        """Bytes a file of this type will have at most, roughly: embeddings may stay at 8 bits."""
        metadata = _METADATA_ROOM + 64 * self.architecture.vocab
        if quant.is_float:
            return gguf_file.data_bytes(self.architecture, _FLOAT[quant.name]) + metadata
        embeddings = self.architecture.vocab * self.architecture.hidden * (1 if self.architecture.tied else 2)
        rest = self.architecture.parameters - embeddings
        return int((rest * quant.bits * 1.1 + embeddings * max(8.5, quant.bits)) / 8) + metadata

    def write(self, path: Path, dtype: Dtype) -> None:
        """Merge into an unquantized GGUF, with progress on stderr."""
        provenance = gguf_file.Provenance(self.source, self.adapter_digest)
        deltas = self.adapter.deltas if self.adapter else {}

        def blocks(placement: architecture.Placement, kind: Dtype) -> Iterator[NDArray[np.generic]]:
            tensor: Tensor = self.tensors[placement.source]
            return merged_blocks(placement, tensor, deltas.get(placement.source), kind)

        what = "merging" if self.adapter else "reading"
        with console.progress(f"{what} ({dtype.lower()})", self.architecture.parameters, "weights") as advance:
            gguf_file.write(
                path,
                architecture=self.architecture,
                vocabulary=self.vocabulary,
                provenance=provenance,
                dtype=dtype,
                blocks=blocks,
                advance=advance,
            )

    def check(self, path: Path) -> Agreement:
        """Prove that a written file tokenizes, renders and stops as the training tokenizer does."""
        return self.expected.compare(path, self.stops)


def convert(
    source: Source, quants: Sequence[Quant], *, force: bool = False, threads: int | None = None
) -> tuple[list[Result], Agreement]:
    """Convert a source to each of the types.

    Every file appears under its name only when it is whole and checked; whatever happens, no temporary file stays. The
    file of the type named last is the newest when all are done.

    Args:
        source: what to convert.
        quants: the types, each once.
        force: replace files that exist.
        threads: for quantizing; None takes all cores.

    Raises:
        MedmindError: refused before the work (file exists, disk too small, source unfit), or a check failed.
    """
    finals = {quant: source.out / f"{source.name}.{quant.name}.gguf" for quant in quants}
    for final in finals.values():
        artifacts.refuse_existing(final, force=force)
    console.require("llama_cpp", "convert")  # the check at the end needs it, whatever the type
    conversion = Conversion(source)
    _note_window(conversion)
    native = conversion.native
    floats = {_FLOAT[quant.name]: quant for quant in quants if quant.is_float}
    need = sum(conversion.estimate(quant) for quant in quants)
    if len(floats) < len(quants) and native not in floats:
        need += gguf_file.data_bytes(conversion.architecture, native)
    artifacts.require_space(source.out, need, "the conversion")

    results: dict[Quant, Result] = {}
    agreement: Agreement | None = None
    quantized = [quant for quant in quants if not quant.is_float]
    with _workspace(source.out) as work:
        # the base's own type first: the quantized ones are made from it
        for dtype in dict.fromkeys([native] * bool(quantized) + sorted(floats, key=lambda kind: kind != native)):
            clock = time.monotonic()
            plain = work / f"{dtype}.gguf"
            conversion.write(plain, dtype)
            agreement = conversion.check(plain)
            seconds = time.monotonic() - clock
            for quant in quantized if dtype == native else []:
                clock = time.monotonic()
                made = work / f"{quant.name}.gguf"
                with console.progress(f"quantizing {quant.name}", None, "tensors") as advance:
                    bits = quantize(plain, made, quant, threads or os.cpu_count() or 1, advance)
                conversion.check(made)
                results[quant] = _finish(made, finals[quant], quant, bits, time.monotonic() - clock, force=force)
            if dtype in floats:
                bits = gguf_file.data_bytes(conversion.architecture, dtype) * 8 / conversion.architecture.parameters
                results[floats[dtype]] = _finish(
                    plain, finals[floats[dtype]], floats[dtype], bits, seconds, force=force
                )
            plain.unlink(missing_ok=True)
    if agreement is None:
        raise ValueError("no type to convert to")
    now = time.time()
    for age, quant in enumerate(reversed(quants)):  # the type named last is the newest: the one `medmind-chat` takes
        os.utime(finals[quant], (now, now - _OLDER * age))
    return [results[quant] for quant in quants], agreement


def _finish(made: Path, final: Path, quant: Quant, bits: float, seconds: float, *, force: bool) -> Result:
    with artifacts.atomic_file(final, force=force) as partial:
        made.replace(partial)
    return Result(final, quant, final.stat().st_size, bits, seconds)


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A hidden directory beside the results, gone afterwards; so are directories made for results that never came."""
    fresh = [path for path in (out, *out.parents) if not path.exists()]
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".convert.*.partial"):
        console.note(f"{left} is left from a conversion that was killed: remove it unless one is running")
    work = out / f".convert.{os.getpid()}.partial"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for path in fresh:
            if any(path.iterdir()):
                break
            path.rmdir()


def _note_window(conversion: Conversion) -> None:
    window = conversion.architecture.window
    if window is not None:
        console.note(
            f"the base attends to {window} tokens back; llama.cpp's llama attends to all: "
            f"keep conversations below {window} tokens"
        )
