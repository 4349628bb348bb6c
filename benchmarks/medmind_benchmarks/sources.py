"""What the user pointed at: which GGUFs, which held-out set, where the report goes. Reads no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmind.artifacts import HELDOUT, is_embedded_run, models_in, newest_model, read_run, run_named
from medmind.errors import MedmindError
from medmind_runtime import gguf_header

REPORT_FOLDER = "benchmark"


@dataclass(frozen=True)
class Sources:
    """The inputs of a benchmark; `run` is the run directory when all files lie in one, else None."""

    files: tuple[Path, ...]
    heldout: Path
    out: Path
    run: Path | None


def find(paths: Sequence[Path], heldout: Path | None, out: Path | None) -> Sources:
    """Resolve the command's arguments.

    Args:
        paths: GGUFs, run directories and names of runs; empty for the newest run that has GGUFs.
        heldout: the rows to measure on, else those beside the files.
        out: the folder for the report, else `benchmark/` beside the files.

    Raises:
        MedmindError: nothing found, or no held-out set.
    """
    places = [run_named(str(path)) for path in paths] or [newest_model().parent]
    files: dict[Path, Path] = {}
    for place in places:
        for file in _models_of(place) if place.is_dir() or is_embedded_run(place) else [place]:
            files.setdefault(file.resolve(), file)
    for file in files.values():
        if not file.exists():
            raise MedmindError(f"{file} does not exist", "give a run directory or .gguf files")
        gguf_header.check(file)
    folders = list(dict.fromkeys(file.parent for file in files.values()))
    return Sources(
        files=tuple(files.values()),
        heldout=heldout or _heldout_beside(folders),
        out=out or folders[0] / REPORT_FOLDER,
        run=folders[0] if len(folders) == 1 else None,
    )


def _models_of(run: Path) -> list[Path]:
    if not is_embedded_run(run) and not any(run.glob("*.gguf")):
        read_run(run)
    return models_in(run, "f16 q8_0 q4_k_m")


def _heldout_beside(folders: Sequence[Path]) -> Path:
    found = [folder / HELDOUT for folder in folders if (folder / HELDOUT).is_file()]
    if len(found) > 1:
        raise MedmindError(
            f"the files lie in {len(found)} folders with a {HELDOUT} each", "choose one with --heldout FILE"
        )
    if not found:
        raise MedmindError(
            f"there is no held-out set: no {HELDOUT} in {folders[0]}",
            "give one with --heldout FILE, one JSON object with 'messages' a line; "
            "medmind-train data SOURCE --out DIR makes one",
        )
    return found[0]
