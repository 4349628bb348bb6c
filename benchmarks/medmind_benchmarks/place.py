"""Where a report may be written. Knows what an earlier report looks like, not what is in it."""

from pathlib import Path

from medmind.artifacts import refuse_existing
from medmind.errors import MedmindError


def refuse_foreign(out: Path, *, force: bool, report: str = "report.json") -> None:
    """Refuse a place that is taken; even with --force, a folder that is no report is not replaced."""
    if out.exists() and not out.is_dir():
        raise MedmindError(f"{out} is a file, a report is a folder", "give another --out")
    refuse_existing(out, force=force)
    if out.exists() and not (out / report).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise MedmindError(f"{out} is not an earlier report, it is not replaced", "give another --out")
