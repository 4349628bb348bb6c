"""What /set shows and changes: the settings of a conversation and of the terminal, by the names people type.

Knows names, values in words, and what a value must be; not how it is asked for.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

from medmind.errors import MedmindError
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.terminal.interactive import Terminal

_SAMPLING = {
    field.name.replace("_", "-"): field.name
    for field in fields(Sampling)
    if field.type in {"float", "int", "int | None", float, int, int | None}
}
NAMES = [*_SAMPLING, "max-tokens", "markdown"]
_N = TypeVar("_N", int, float)


def shown(terminal: Terminal, conversation: Conversation) -> dict[str, str]:
    """Each setting and its value, as a person reads it."""
    values = {name: getattr(conversation.sampling, field) for name, field in _SAMPLING.items()}
    return {
        **{name: "drawn for each answer" if value is None else str(value) for name, value in values.items()},
        "max-tokens": str(conversation.max_tokens),
        "markdown": "on" if terminal.markdown else "off",
    }


def change(terminal: Terminal, conversation: Conversation, name: str, value: str) -> None:
    """Set one of `NAMES`.

    Raises:
        MedmindError: the value is none that it can have.
    """
    if name == "markdown":
        if value not in {"on", "off"}:
            raise MedmindError(f"markdown is {value!r} and must be on or off")
        terminal.markdown = value == "on"
    elif name == "max-tokens":
        tokens = _number(name, value, int)
        if tokens < 1:
            raise MedmindError(f"max-tokens is {value} and must be 1 or more")
        conversation.max_tokens = tokens
    elif name == "seed" and value in {"none", "random"}:
        conversation.sampling = replace(conversation.sampling, seed=None)
    else:
        field = _SAMPLING[name]
        whole = not isinstance(getattr(Sampling(), field), float)
        changed: dict[str, Any] = {field: _number(name, value, int) if whole else _number(name, value, float)}
        conversation.sampling = replace(conversation.sampling, **changed)


def _number(name: str, value: str, kind: Callable[[str], _N]) -> _N:
    try:
        return kind(value)
    except (ValueError, OverflowError):
        raise MedmindError(f"{name} is {value!r} and must be a number") from None
