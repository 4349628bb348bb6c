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
from medmind_convert.calibration import Made
from medmind_convert.conversion import Conversion, Onto
from medmind_convert.convert import Options, convert
from medmind_convert.imatrix import SUFFIX, Imatrix, read_imatrix
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
) -> dict[Quant, bool]:
    """Whether each type would be weighted by a matrix: one that is there, or one that the run has text for.

    Args:
        source: what would be converted.
        types: the types.
        given: a matrix that will be named.
        wanted: whether one may be taken or collected unasked.
        together: whether all types are made by one call, in which one matrix serves them all.
    """
    if given is not None:
        read_imatrix(given)
        return dict.fromkeys(types, True)
    at_hand = (source.out / f"{source.name}{SUFFIX}").is_file()
    run = _run(source)
    possible = wanted and (at_hand or bool(run is not None and calibration.of_run(run)))
    return {each: possible and wanted_by(types if together else [each]) for each in types}


def for_source(source: Source, given: Path | None, *, onto: Onto, threads: int | None) -> tuple[Path, Imatrix] | None:
    """The matrix to convert with, or None where none is at hand and there is no text to make one of.

    Where none can be collected (too little text, say) a line says so: the conversion refuses types that need one.

    Raises:
        MedmindError: the named file, or the one beside the results, is no importance matrix.
    """
    if given is not None:
        return given, read_imatrix(given)
    file = source.out / f"{source.name}{SUFFIX}"
    if file.is_file():
        console.note(f"weighted by {file} (--no-imatrix leaves it out)")
        return file, read_imatrix(file)
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


def _run(source: Source) -> Path | None:
    return source.adapter.parent if source.run is not None and source.adapter is not None else None
