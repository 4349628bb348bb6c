"""A call that says nothing but a model and settings of the chat, read without typer.

Typer, with the library that it checks values by, takes longer to import than all that the first prompt needs. So it is
left out where nothing can be wrong: words that are not plainly such a call are read by typer, which says what is the
matter. The settings are the fields of `ChatConfig`, in the spelling that typer gives their options.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from medmind_runtime.config import ChatConfig

COMMANDS = frozenset({"chat", "serve", "index", "bundle"})
"""Words that are no model when they come first."""
UNNAMED = frozenset({"grammar"})
"""Settings without an option of their own."""
_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


@dataclass(frozen=True)
class PlainCall:
    """What a plain call asks for.

    Attributes:
        model: as named; None for the newest.
        config: the settings.
    """

    model: str | None
    config: ChatConfig


def read(words: Sequence[str]) -> PlainCall | None:
    """What the words after `medmind-chat` ask for; None when typer has to tell."""
    if os.name == "nt" or (words and words[0] in COMMANDS):  # on Windows typer expands patterns such as *.gguf
        return None
    kinds = {
        f"--{name.replace('_', '-')}": (name, kind)
        for name, kind in get_type_hints(ChatConfig).items()
        if name not in UNNAMED
    }
    models: list[str] = []
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            models.append(word)
            continue
        name, kind = kinds.get(word.replace("--no-", "--", 1), ("", None))
        value: Any
        if kind is bool:
            value = not word.startswith("--no-")
        else:
            value = _value(kind, next(rest, "-")) if word in kinds else None
        if value is None:
            return None
        given[name] = value
    return None if len(models) > 1 else PlainCall(models[0] if models else None, ChatConfig(**given))


def _value(kind: Any, text: str) -> Any:
    """The text as one of the kinds that a setting may have; None when it is plainly none of them."""
    if kind is str:
        return None if text.startswith("-") else text
    if kind is Path:
        return None if text.startswith("-") else Path(text)
    if kind is int:
        return int(text) if _WHOLE.fullmatch(text) else None
    if kind is float:
        return float(text) if _NUMBER.fullmatch(text) else None
    if get_origin(kind) is Literal:
        return text if text in get_args(kind) else None
    values = (_value(one, text) for one in get_args(kind))
    return next((value for value in values if value is not None), None)
