"""A conversation as a file: format `medmind-conversation/1`, one JSON document. Knows no terminal and no engine.

Fields: `format`, `created` (ISO 8601, UTC), `model`, `system`, `turns`: a list of `question`, `answer` and `sources`,
each of these with `text`, `source` and `url`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmind.artifacts import read_json
from medmind.errors import MedmindError
from medmind_runtime import private_file
from medmind_runtime.turn import Passage, Turn

FORMAT = "medmind-conversation/1"
_LARGEST = 64 << 20


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
                "sources": [asdict(passage) for passage in turn.passages],
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
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise MedmindError(f"{path} is larger than any conversation", "give a file that /save wrote")
    try:
        document = read_json(path)
    except RecursionError:
        raise MedmindError(f"{path} is nested too deeply", "give a file that /save wrote") from None
    if document.get("format") != FORMAT:
        raise MedmindError(f"{path} is not of the format {FORMAT}", "give a file that /save wrote")
    try:
        return _text(document, "system"), [_turn(row) for row in document["turns"]]
    except (KeyError, TypeError) as error:
        raise MedmindError(f"{path} is damaged: {error}", "give a file that /save wrote") from error


def _turn(row: Mapping[str, Any]) -> Turn:
    sources = tuple(Passage(*(_text(source, key) for key in ("text", "source", "url"))) for source in row["sources"])
    return Turn(_text(row, "question"), _text(row, "answer"), sources)


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is no text")
    return value
