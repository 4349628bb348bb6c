"""Held-out rows as items: a question, its answer, and which of four answers belongs to it.

Knows rows; no model and no library.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmind.artifacts import read_jsonl, write_jsonl
from medmind.errors import MedmindError
from medmind_benchmarks import examples
from medmind_benchmarks.answers import matching
from medmind_benchmarks.answers.questions import Question
from medmind_benchmarks.typed_json import decode
from medmind_runtime.library.ranking import Topic

NO_QUESTION = "does not begin with a question and its answer"


@dataclass(frozen=True)
class Item:
    """The first question and answer of a held-out row.

    Attributes:
        id: of the row.
        question: as a user would type it.
        answer: the held-out one.
        focus, kind: its topic; empty where the row carries none.
        choice: the same question with four answers, of which one belongs to it; None where none can be made.
    """

    id: str
    question: str
    answer: str
    focus: str
    kind: str
    choice: Question | None

    @property
    def topic(self) -> Topic | None:
        """What it is about; None where the row does not say."""
        return Topic(self.focus, self.kind) if self.focus and self.kind else None


def build(rows: Sequence[Mapping[str, Any]], limit: int) -> tuple[list[Item], dict[str, int]]:
    """Items of at most `limit` rows (0: all), chosen as in other benchmarks; wrong answers come from all rows.

    Returns:
        The items, and reason → how many rows make none.

    Raises:
        MedmindError: not one row makes an item.
    """
    try:
        choices = {question.id: question for question in matching.build(rows).questions}
    except MedmindError:  # rows without a focus: perplexity can be measured all the same
        choices = {}
    found: list[Item] = []
    dropped: Counter[str] = Counter()
    for place in examples.choose(rows, limit or None):
        row = rows[place]
        messages = [message for message in row["messages"] if message["role"] != "system"]
        if [message["role"] for message in messages[:2]] != ["user", "assistant"]:
            dropped[NO_QUESTION] += 1
            continue
        name = str(row.get("id") or place + 1)
        focus, kind = (str(row.get(key) or "").strip() for key in ("focus", "question_type"))
        found.append(Item(name, messages[0]["content"], messages[1]["content"], focus, kind, choices.get(name)))
    if not found:
        raise MedmindError(f"none of the held-out rows can be asked: each {NO_QUESTION}", "give others with --heldout")
    return found, dict(dropped)


def write(path: Path, items: Sequence[Item]) -> None:
    """One item a line, for the cells."""
    write_jsonl(path, [asdict(item) for item in items])


def read(path: Path) -> list[Item]:
    """What `write` wrote."""
    return [decode(Item, row) for row in read_jsonl(path)]
