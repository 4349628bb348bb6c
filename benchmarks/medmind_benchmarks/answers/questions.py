"""A multiple-choice question, its prompt, and files of them. Knows no data set and no model."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medmind import turns
from medmind.artifacts import read_jsonl, write_jsonl
from medmind_benchmarks.typed_json import decode

Style = Literal["letters", "text"]
"""Whether the options stand in the prompt and their letters are scored, or each option's text is."""
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: names it, unique within a set.
        text: what is asked, context included.
        options: at least two.
        answer: place of the right one.
        group: subject or question type; empty where there is none.
        style: what is scored.
    """

    id: str
    text: str
    options: tuple[str, ...]
    answer: int
    group: str
    style: Style

    @property
    def prompt(self) -> str:
        """What the user says to the model."""
        if self.style == "text":
            return self.text
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False))
        return f"{self.text}\n{listed}\nAnswer with the letter of the right option."

    @property
    def scored(self) -> tuple[str, ...]:
        """What the model may answer, in the order of the options."""
        return self.options if self.style == "text" else tuple(LETTERS[: len(self.options)])


@dataclass(frozen=True)
class QuestionSet:
    """Questions of one source.

    Attributes:
        name: of the source, for people.
        questions: in the order of the source.
        dropped: reason → how many were left out.
    """

    name: str
    questions: tuple[Question, ...]
    dropped: dict[str, int]

    @property
    def digest(self) -> str:
        """`sha256:…` over everything that is asked."""
        lines = [json.dumps([q.id, q.prompt, q.scored, q.answer], ensure_ascii=False) for q in self.questions]
        return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return sum(1 / len(question.options) for question in self.questions) / max(1, len(self.questions))

    def first(self, limit: int) -> "QuestionSet":
        """At most `limit` of them (0: all), those whose ids have the lowest hashes, as rows are chosen elsewhere."""
        places = turns.choose([question.id for question in self.questions], limit)
        return QuestionSet(self.name, tuple(self.questions[place] for place in places), self.dropped)


def write(path: Path, questions: Sequence[Question]) -> None:
    """One question a line."""
    write_jsonl(
        path,
        [
            {
                "id": one.id,
                "text": one.text,
                "options": list(one.options),
                "answer": one.answer,
                "group": one.group,
                "style": one.style,
            }
            for one in questions
        ],
    )


def read(path: Path) -> list[Question]:
    """What `write` wrote."""
    return [decode(Question, row) for row in read_jsonl(path)]
