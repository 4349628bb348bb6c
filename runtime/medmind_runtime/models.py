"""Which GGUF file is meant: a path, a run, or the newest one converted."""

from pathlib import Path

from medmind.artifacts import RUNS, newest_model
from medmind.errors import MedmindError


def find(name: str | None) -> tuple[Path, str]:
    """The file, and why it was taken (empty when it was named itself).

    Args:
        name: a file, a run directory, the name of a run under `runs/`, or None for the newest of all runs.

    Raises:
        MedmindError: there is none.
    """
    if name is None:
        return newest_model(), "the newest converted model"
    path = Path(name)
    if not path.exists() and path.name == name and (RUNS / name).is_dir():
        path = RUNS / name
    if not path.is_dir():
        if not path.exists():
            raise MedmindError(f"there is no model {name}", "give a .gguf file, a run directory, or nothing")
        return path, ""
    models = [file for file in path.glob("*.gguf") if not file.name.startswith(".")]
    if not models:
        raise MedmindError(
            f"there is no converted model in {path}/", f"make one with: medmind-convert gguf q4_k_m {path}"
        )
    newest = max(models, key=lambda file: file.stat().st_mtime_ns)
    return newest, f"the newest of {len(models)} in {path}" if len(models) > 1 else ""
