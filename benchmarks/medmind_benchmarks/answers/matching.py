"""Which of four held-out answers belongs to this question: made from held-out rows. Knows rows; knows no model.

For a model too small for published questions. The wrong answers are other held-out answers to the same type of
question, of nearly the same length, and what is asked about is named in none of the four, so that neither the type of
answer, nor its length, nor a repeated name tells. What still tells without the question is measured: the answer-only
baseline.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmind.errors import MedmindError
from medmind_benchmarks.answers.questions import Question, QuestionSet

OPTIONS = 4
WORDS = 60
"""Answers are cut here: most are longer, and so of one length, and the first words hold what is specific."""
_LONGER = 1.5
"""An option has at most so many times the words of another."""
_ALIKE = 0.6
"""Share of common words above which two answers count as the same."""
_MASK = "this condition"
_PARENTHESES = re.compile(r"\s*\(([^()]*)\)")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class _Answer:
    """One held-out answer, cut and masked."""

    row: str
    question: str
    text: str
    focus: str
    kind: str
    words: frozenset[str]
    length: int


def build(rows: Sequence[Mapping[str, Any]]) -> QuestionSet:
    """A question of each held-out row that has three others to be told from.

    Args:
        rows: with `messages` and `focus`; the first question and answer of each are used.

    Raises:
        MedmindError: not one question can be made.
    """
    dropped: Counter[str] = Counter()
    answers = []
    for number, row in enumerate(rows, 1):
        answer = _answer(row, number)
        if isinstance(answer, str):
            dropped[answer] += 1
        else:
            answers.append(answer)
    questions = []
    for one in answers:
        others = _distractors(one, answers)
        if len(others) < OPTIONS - 1:
            dropped[f"fewer than {OPTIONS - 1} other answers of its type and length"] += 1
            continue
        options = sorted([one, *others], key=lambda option: _rank("order", one.row, option.row))
        questions.append(
            Question(
                one.row,
                one.question,
                tuple(option.text for option in options),
                options.index(one),
                one.kind,
                "text",
            )
        )
    if not questions:
        why = max(dropped, key=lambda reason: dropped[reason])
        raise MedmindError(
            f"no question can be made of the {len(rows)} held-out rows: {why}",
            "give more held-out rows, with 'focus' and 'question_type', or published questions with --questions",
        )
    return QuestionSet("held-out answers", tuple(questions), dict(dropped))


def mask(text: str, focus: str) -> str:
    """`text` with every name of `focus` replaced: the whole, the part before parentheses, and what they enclose."""
    for name in _names(focus):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?:s|es|'s|’s)?(?!\w)", _MASK, text, flags=re.IGNORECASE)
    return text


def _names(focus: str) -> list[str]:
    inside = [part for group in _PARENTHESES.findall(focus) for part in group.split(",")]
    names = {focus.strip(), _PARENTHESES.sub("", focus).strip(), *(part.strip() for part in inside)}
    return sorted((name for name in names if len(name) > 1), key=len, reverse=True)


def _answer(row: Mapping[str, Any], number: int) -> _Answer | str:
    """The row's first answer, or why it is of no use."""
    focus = str(row.get("focus") or "").strip()
    if not focus:
        return "no focus: what is asked about cannot be masked"
    messages = [message for message in row["messages"] if message["role"] != "system"]
    if len(messages) < 2 or messages[0]["role"] != "user" or messages[1]["role"] != "assistant":
        return "does not begin with a question and its answer"
    words = messages[1]["content"].split()
    text = mask(" ".join(words[:WORDS]), focus)
    found = frozenset(word.lower() for word in _WORD.findall(text))
    if not found:
        return "an answer without words"
    return _Answer(
        str(row.get("id") or number),
        str(messages[0]["content"]),
        text,
        focus,
        str(row.get("question_type") or ""),
        found,
        min(len(words), WORDS),
    )


def _distractors(one: _Answer, answers: Sequence[_Answer]) -> list[_Answer]:
    """The answers nearest in length that are of its type, of another focus, and not the same in other words."""

    def eligible(other: _Answer) -> bool:
        ratio = max(other.length, one.length) / min(other.length, one.length)
        return other.kind == one.kind and other.focus.lower() != one.focus.lower() and ratio <= _LONGER

    def nearness(other: _Answer) -> tuple[float, bytes]:
        return abs(math.log(other.length / one.length)), _rank("choice", one.row, other.row)

    chosen: list[_Answer] = []
    for other in sorted(filter(eligible, answers), key=nearness):
        same = any(taken.focus.lower() == other.focus.lower() for taken in chosen)
        if same or any(_alike(other, taken) >= _ALIKE for taken in (one, *chosen)):
            continue
        if mask(other.text, one.focus) == other.text:  # it speaks of what is asked about, and may be right
            chosen.append(other)
        if len(chosen) == OPTIONS - 1:
            break
    return chosen


def _alike(one: _Answer, other: _Answer) -> float:
    return len(one.words & other.words) / len(one.words | other.words)


def _rank(purpose: str, row: str, other: str) -> bytes:
    """An order that is the same everywhere and follows nothing; one for choosing must not be one for listing."""
    return hashlib.sha256(f"{purpose}\0{row}\0{other}".encode()).digest()
