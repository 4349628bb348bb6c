"""A conversation as a file: format `medmind-conversation/1`, one JSON document. Knows no terminal and no engine.

Fields: `format`, `created` (ISO 8601, UTC), `model`, `system`, `turns`: a list of `question`, `answer` and `sources`,
each of these with `text`, `source` and `url`.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from medmind.errors import MedmindError
from medmind_runtime import bounded_file, private_file
from medmind_runtime.turn import Passage, Turn

FORMAT = "medmind-conversation/1"
_LARGEST = 64 << 20
_OTHER = "give another copy, or another file that /save wrote"
T = TypeVar("T")


def write(path: Path, *, model: str, system: str, turns: Sequence[Turn]) -> None:
    """Write the file so that only its owner can read it."""
    document = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": model,
        "system": system,
        "turns": [
            {
                "question": turn.question,
                "answer": turn.answer,
                "sources": [passage.cited() for passage in turn.passages],
            }
            for turn in turns
        ],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    private_file.write(path, f"{text}\n".encode("utf-8", "replace"))


def read(path: Path) -> tuple[str, list[Turn]]:
    """The system prompt and the turns.

    Raises:
        MedmindError: it is no such file.
    """
    document = _document(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise MedmindError(f"{path} is not of the format {FORMAT}", "give a file that /save wrote")
    try:
        system = _part(document, "system", str, "it")
        rows = _part(document, "turns", list, "it")
        return system, [_turn(row, f"turn {number}") for number, row in enumerate(rows, 1)]
    except _DamagedError as error:
        raise MedmindError(f"{path} is damaged: {error}", _OTHER) from None


class _DamagedError(Exception):
    """What is missing where."""


def _document(path: Path) -> Any:
    """The JSON in the file."""
    private_file.demand_regular(path)  # a FIFO would be waited for
    try:
        return json.loads(bounded_file.read(path, _LARGEST, kind="conversation", mend="give a file that /save wrote"))
    except FileNotFoundError:
        raise MedmindError(f"{path} does not exist", "give a file that /save wrote") from None
    except OSError as error:
        raise MedmindError(f"{path} cannot be read: {error.strerror}", "give a file that /save wrote") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MedmindError(f"{path} is no JSON: what stands in {place} does not belong there", _OTHER) from None
    except (ValueError, RecursionError):  # no UTF-8, a number of too many digits, nested too deeply
        raise MedmindError(f"{path} holds no text that is JSON", _OTHER) from None


def _turn(row: Any, where: str) -> Turn:
    sources = tuple(
        Passage(*(_part(source, key, str, f"source {number} of {where}") for key in ("text", "source", "url")))
        for number, source in enumerate(_part(row, "sources", list, where), 1)
    )
    return Turn(_part(row, "question", str, where), _part(row, "answer", str, where), sources)


def _part(row: Any, key: str, kind: type[T], where: str) -> T:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise _DamagedError(f"{where} has no {'text' if kind is str else 'list'} called {key}")
    return value
