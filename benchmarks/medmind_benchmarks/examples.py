"""Held-out rows: reading and choosing them, and turning each answer into tokens a model is scored on.

Knows chat messages and a tokenizer's interface; loads no model.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medmind.artifacts import read_jsonl
from medmind.errors import MedmindError

Messages = Sequence[Mapping[str, str]]
_ROLES = ("system", "user", "assistant")


class Tokenizer(Protocol):
    """What of `medmind_runtime.engine.Engine` is needed to build examples."""

    def render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        """The chat template filled in."""
        ...

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids; no BOS is added, control tokens are recognised when `special`."""
        ...


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
    """Indices of at most `limit` rows, in file order: those whose content has the smallest SHA-256.

    A row's place in the choice depends on the row alone, so that the same rows are chosen from a file in another order.
    """
    if limit is None or limit >= len(rows):
        return list(range(len(rows)))

    def rank(index: int) -> tuple[str, int]:
        content = json.dumps(rows[index]["messages"], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest(), index

    return sorted(sorted(range(len(rows)), key=rank)[:limit])


def build(tokenizer: Tokenizer, messages: Messages, *, context: int, system_prompt: str) -> tuple[list[Example], int]:
    """Every assistant turn of a row as an example.

    Args:
        tokenizer: renders and tokenizes.
        messages: the row's conversation.
        context: tokens at which an example is cut; a cut answer carries no EOS.
        system_prompt: put first unless it is empty or the row has a system message of its own.

    Returns:
        The examples, and how many turns were dropped because their prompt leaves no room for an answer token.

    Raises:
        MedmindError: the template changes what comes before an answer once the answer is there.
    """
    if system_prompt and not any(message["role"] == "system" for message in messages):
        messages = [{"role": "system", "content": system_prompt}, *messages]
    examples = []
    dropped = 0
    for end, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt_text = tokenizer.render(messages[:end], add_generation_prompt=True)
        full_text = tokenizer.render(messages[: end + 1], add_generation_prompt=False)
        prompt = tokenizer.tokenize(prompt_text, special=True)
        full = tokenizer.tokenize(full_text, special=True)
        if full[: len(prompt)] != prompt:
            if not full_text.startswith(prompt_text):
                raise MedmindError(
                    "the model's chat template renders a prompt differently once it is answered",
                    "its answers cannot be scored; use the template the model was trained with",
                )
            full = prompt + tokenizer.tokenize(full_text[len(prompt_text) :], special=True)
        if len(prompt) >= min(context, len(full)):
            dropped += 1
            continue
        examples.append(Example(tuple(full[:context]), len(prompt), cut=len(full) > context))
    return examples, dropped
