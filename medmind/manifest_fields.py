"""What kind each field of a run's manifest is of; see `artifacts.read_run` for their meaning. Opens no file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmind.errors import MedmindError

_OBJECTS = ("base", "adapter", "data", "config")
_TEXTS = (
    *("name", "system_prompt"),
    *("base.name", "base.kind", "base.digest"),
    *("adapter.path", "adapter.digest", "adapter.trained_on"),
    *("data.source", "data.digest"),
)
_MOST_TOKENS = 1 << 31


def check(manifest: Mapping[str, Any], file: Path) -> None:
    """Refuse a field of another kind; one may be missing, or null where nothing is known.

    Raises:
        MedmindError: names the file and the field.
    """
    for name in _OBJECTS:
        _demand(file, name, manifest.get(name), dict, "an object")
    for name in _TEXTS:
        outer, _, inner = name.partition(".")
        value = manifest.get(outer)
        _demand(file, name, (value or {}).get(inner) if inner else value, str, "text")
    context = manifest.get("context")
    if context is not None and (type(context) is not int or not 0 < context < _MOST_TOKENS):
        _demand(file, "context", context, type(None), "a number of tokens")


def _demand(file: Path, name: str, value: object, kind: type, words: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise MedmindError(f"{file}: {name} is {value!r}, not {words}", "restore the file, or train again")
