"""The importance matrix of a source: the one named, the one beside its results, or one collected over its own text.

Knows where it lies and when a conversion wants one; `calibration.py` knows the text, `activations.py` runs the model.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medmind import artifacts, console
from medmind.errors import MedmindError
from medmind_convert import calibration, ggml, quants
from medmind_convert.activations import ADAPTER_NOTE, BASE_NOTE
from medmind_convert.calibration import Made
from medmind_convert.conversion import Conversion, Onto
from medmind_convert.convert import Options, convert
from medmind_convert.imatrix import SUFFIX, Imatrix, Weighting, read_imatrix, weighting
from medmind_convert.quants import Quant
from medmind_convert.source import Source

CHUNKS = 64
"""Chunks of 512 tokens that are collected unasked: on a 7B and two cores some tens of minutes."""


def wanted_by(types: Sequence[Quant]) -> bool:
    """Whether one of the types has fewer bits than Q4_K, below which a matrix saves more than it costs."""
    q4_k = ggml.types()["Q4_K"]
    return any(quant.bits < q4_k.bytes * 8 / q4_k.block for quant in types)


def expected(
    source: Source, types: Sequence[Quant], *, given: Path | None, wanted: bool, together: bool
) -> dict[Quant, Weighting | None]:
    """What each type would be weighted by: a matrix that is there, or one that the run has text for.

    Args:
        source: what would be converted.
        types: the types.
        given: a matrix that will be named.
        wanted: whether one may be taken or collected unasked.
        together: whether all types are made by one call, in which one matrix serves them all.
    """
    if given is not None:
        return dict.fromkeys(types, weighting(given, read_imatrix(given)))
    file, run = source.out / f"{source.name}{SUFFIX}", _run(source)
    found: Weighting | None = None
    if wanted and file.is_file():
        found = weighting(file, read_imatrix(file))
    elif wanted and run is not None and calibration.of_run(run):
        found = beside(source)
    return {each: found if wanted_by(types if together else [each]) else None for each in types}


def beside(source: Source) -> Weighting:
    """What a file says of a matrix that is collected over a run's own text; its counts are 1, of the same width."""
    return Weighting(str(source.out / f"{source.name}{SUFFIX}"), artifacts.VALIDATION, 1, 1)


def for_conversion(conversion: Conversion, given: Path | None, *, threads: int | None) -> tuple[Path, Imatrix] | None:
    """The matrix to convert with, or None where none is at hand and there is no text to make one of.

    Where none can be collected (too little text, say) a line says so: the conversion refuses types that need one.

    Raises:
        MedmindError: the named file, or the one beside the results, is no importance matrix, or that one was collected
            over another model.
    """
    source, onto = conversion.source, conversion.onto
    if given is not None:
        found = read_imatrix(given)
        if (other := _other_model(conversion, found)) is not None:
            console.note(f"{given} {other}")
        return given, found
    file = source.out / f"{source.name}{SUFFIX}"
    if file.is_file():
        found = read_imatrix(file)
        other = _other_model(conversion, found)
        if other is not None and _recorded(found):
            raise MedmindError(
                f"{file} {other}",
                "make it again with medmind-convert imatrix --force, or leave it out with --no-imatrix",
            )
        console.note(f"weighted by {file} (--no-imatrix leaves it out)" + (f"; it {other}" if other else ""))
        return file, found
    run = _run(source)
    if run is None or not calibration.of_run(run):
        return None
    console.note(f"collecting {file} over {artifacts.VALIDATION} first (--no-imatrix leaves it out)")
    try:
        made = collect(source, onto=onto, chunks=CHUNKS, threads=threads)
    except MedmindError as error:
        console.note(f"goes on without an importance matrix: {error.message}")
        return None
    return made.file, made.collected.imatrix


def collect(
    source: Source,
    files: Sequence[Path] = (),
    *,
    onto: Onto = "base",
    out: Path | None = None,
    chunks: int | None = None,
    output: bool = True,
    threads: int | None = None,
    force: bool = False,
) -> Made:
    """Convert a source to q8_0 in a folder that is gone again afterwards, and run that over its text.

    Args:
        source: what to convert.
        files: text to take instead of the run's validation rows.
        onto: what the adapter is merged onto.
        out: the result; None puts it beside the source's other results, as `NAME.imatrix.gguf`.
        chunks, output, threads, force: as for `calibration.make_imatrix`.

    Raises:
        MedmindError: there is no text, the file exists, or one of the two steps failed.
    """
    file = out or source.out / f"{source.name}{SUFFIX}"
    artifacts.refuse_existing(file, force=force)
    run = _run(source)
    if not files and (run is None or not calibration.of_run(run)):
        raise MedmindError(
            f"{source.name} has no validation rows to run it over", "give text with --text, as text or .jsonl rows"
        )
    missing = not source.out.exists()
    folder = source.out / f".{source.name}.imatrix"
    try:
        conversion = Conversion(replace(source, out=folder), onto)
        results, _ = convert(conversion, [quants.QUANTS["q8_0"]], Options(force=True, threads=threads))
        return calibration.make_imatrix(
            results[0].file, run, files, file, chunks=chunks, output=output, threads=threads, force=force
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if missing and source.out.is_dir() and not any(source.out.iterdir()):
            source.out.rmdir()


def _recorded(imatrix: Imatrix) -> bool:
    return BASE_NOTE in imatrix.notes


def _other_model(conversion: Conversion, imatrix: Imatrix) -> str | None:
    """What speaks against a matrix being this model's own, or None."""
    if not _recorded(imatrix):
        return "does not say over which model it was collected"
    own = (conversion.source.base_digest, conversion.adapter_digest or "")
    if (imatrix.notes[BASE_NOTE], imatrix.notes.get(ADAPTER_NOTE, "")) == own:
        return None
    what = "adapter" if imatrix.notes[BASE_NOTE] == own[0] else "base"
    return f"was collected over another {what}"


def _run(source: Source) -> Path | None:
    return source.adapter.parent if source.run is not None and source.adapter is not None else None
