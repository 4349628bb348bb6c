"""What `medmind-convert gguf` is told beside names: size, importance matrix, what to merge onto. Prints no result."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from medmind import artifacts
from medmind.errors import MedmindError
from medmind_convert import fitting, one_pass, run_imatrix
from medmind_convert.conversion import Conversion
from medmind_convert.convert import Options, importance_of
from medmind_convert.fitting import Fitted, Target
from medmind_convert.imatrix import weighting
from medmind_convert.partial import journal_of
from medmind_convert.quants import Quant
from medmind_convert.sizes import parse_bytes
from medmind_convert.source import Source


def target(fit: str | None, bits: float | None) -> Target | None:
    """The size that was asked for, named for the file.

    Raises:
        MedmindError: both were given, or the size is none.
    """
    if fit is not None and bits is not None:
        raise MedmindError("--fit and --bits-per-weight both give a size", "leave one out")
    if fit is not None:
        return Target(f"fit-{re.sub('[^0-9a-z.]', '', fit.lower())}", bytes=parse_bytes(fit))
    return None if bits is None else Target(f"fit-{bits:g}bpw", bits=bits)


def refuse_existing(source: Source, names: Iterable[str], *, force: bool) -> None:
    """Refuse files that exist before anything is measured or collected; those half made by this command may go on."""
    files = [source.out / f"{source.name}.{name}.gguf" for name in names]
    if not any(journal_of(file).exists() for file in files):  # else the conversion looks at each
        for file in files:
            artifacts.refuse_existing(file, force=force)


def with_importance(
    conversion: Conversion, types: list[Quant], options: Options, *, sized: bool, given: Path | None, wanted: bool
) -> tuple[Options, Path | None]:
    """The options with the importance matrix in force, and its file.

    Raises:
        MedmindError: `--imatrix` and `--no-imatrix` together, or a matrix that cannot be read.
    """
    if given is not None and not wanted:
        raise MedmindError("--imatrix and --no-imatrix are opposites", "leave one out")
    if given is None and not (wanted and (sized or run_imatrix.wanted_by(types))):
        return options, None
    found = run_imatrix.for_conversion(conversion, given, threads=options.threads)
    if found is None:
        return options, None
    return replace(options, imatrix=found[1], weighting=weighting(*found)), found[0]


def with_fit(conversion: Conversion, wanted: Target, options: Options) -> tuple[Options, Fitted]:
    """The options with the types that make the file fit."""
    fitted = fitting.choose(
        conversion,
        wanted,
        importance_of(options.imatrix),
        threads=options.threads or one_pass.cores(),
        provenance=options.provenance,
        split_max=options.split_max,
        weighting=options.weighting,
    )
    return replace(options, types={fitted.quant.name: fitted.types}), fitted
