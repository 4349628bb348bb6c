"""Lists in an option's text: `q8_0,q4_0`, `512,2048`. Knows no option."""

from collections.abc import Sequence
from typing import Any

from medmind.errors import MedmindError


def choice(option: str, text: str, allowed: Sequence[str]) -> Any:
    """One word of those allowed.

    Raises:
        MedmindError: another word.
    """
    if text not in allowed:
        raise MedmindError(f"{option} {text} is none of {', '.join(allowed)}")
    return text


def choices(option: str, text: str | None, allowed: Sequence[str]) -> tuple[Any, ...] | None:
    """The words of a list between commas, in their order, each once; None when the option is not given.

    Raises:
        MedmindError: an empty list, or a word that is not allowed.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise MedmindError(f"{option} names nothing", f"give some of {', '.join(allowed)}")
    return tuple(dict.fromkeys(choice(option, word, allowed) for word in words))


def numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """The whole numbers above zero of a list between commas, ascending, each once; None when the option is not given.

    Raises:
        MedmindError: an empty list, or what is no such number.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise MedmindError(f"{option} {text} is no list of whole numbers", "write it like 512,2048")
    return tuple(sorted({int(word) for word in words}))
