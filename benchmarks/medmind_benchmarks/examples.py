"""Held-out rows: reading and choosing them, and turning each answer into tokens a model is scored on.

Knows rows; the rule from messages to tokens is medmind.turns, and no model is loaded.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import turns
from medmind.artifacts import read_jsonl
from medmind.errors import MedmindError

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Example:
    """One answer of a row: the model sees `tokens[:start]` and is scored on `tokens[start:]`."""

    tokens: tuple[int, ...]
    start: int
    cut: bool


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a held-out file.

    Raises:
        MedmindError: missing, not JSON lines, no rows, or a row without an answer.
    """
    rows = read_jsonl(path)
    if not rows:
        raise MedmindError(f"{path} holds no rows", "give held-out rows with --heldout FILE")
    for number, row in enumerate(rows, 1):
        messages: Any = row.get("messages")
        well_formed = isinstance(messages, list) and all(
            isinstance(message, dict) and message.get("role") in _ROLES and isinstance(message.get("content"), str)
            for message in messages
        )
        if not well_formed or not any(message["role"] == "assistant" for message in messages):
            raise MedmindError(
                f"{path}: row {number} has no answer",
                'a row is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
            )
    return rows


def choose(rows: Sequence[Mapping[str, Any]], limit: int | None) -> list[int]:
    """Indices of at most `limit` rows, in file order, chosen as training does; a row without an id by content."""
    names = [str(row.get("id") or json.dumps(row["messages"], sort_keys=True, ensure_ascii=False)) for row in rows]
    return turns.choose(names, limit or 0)


def build(
    language: turns.Language, messages: turns.Messages, *, context: int, system_prompt: str
) -> tuple[list[Example], int]:
    """Every assistant turn of a row as an example.

    Args:
        language: renders and tokenizes.
        messages: the row's conversation.
        context: tokens at which an example is cut; a cut answer carries no EOS.
        system_prompt: put first unless it is empty or the row has a system message of its own.

    Returns:
        The examples, and how many turns were dropped, because their prompt leaves no room for an answer token or the
        row spells out a control token.

    Raises:
        MedmindError: the template changes what comes before an answer once the answer is there.
    """
    examples = []
    dropped = 0
    for before, through in turns.turns(messages, system_prompt):
        if turns.spells_control(messages, language.controls):
            dropped += 1
            continue
        prompt, answer = turns.tokens(language, before, through)
        if len(prompt) >= context:
            dropped += 1
            continue
        whole = prompt + answer
        examples.append(Example(tuple(whole[:context]), len(prompt), cut=len(whole) > context))
    return examples, dropped
