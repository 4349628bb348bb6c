"""Which GGUF file is meant: a path, a run, or the newest one converted; and that it is a whole one.

Knows where runs and embedded models lie. Loads nothing.
"""

from pathlib import Path

from medmind import embedded, gguf_header
from medmind.artifacts import models_in, newest_model, run_named
from medmind.errors import MedmindError


def find(name: str | None) -> tuple[Path, str]:
    """The file, and why it was taken (empty when it was named itself).

    Its header is read here, so that a damaged file is refused before anything else is done, and once more to load it.

    Args:
        name: a file, a run directory, the name of a run under `runs/` or of an embedded one, or None for the newest
            of all runs.

    Raises:
        MedmindError: there is none, or it is no whole GGUF file.
    """
    path, why = _named(name)
    gguf_header.check(path)
    return path, why


def _named(name: str | None) -> tuple[Path, str]:
    if name is None:
        return newest_model(), "the newest converted model"
    path = run_named(name)
    if path.exists() and not path.is_dir():
        return path, ""
    if not path.exists() and name not in embedded.RUNS:
        raise MedmindError(f"there is no model {name}", "give a .gguf file, a run directory, or nothing")
    models = models_in(path, "q8_0" if name in embedded.RUNS else "q4_k_m")
    newest = max(models, key=lambda file: file.stat().st_mtime_ns)
    return newest, f"the newest of {len(models)} in {path}" if len(models) > 1 else ""
