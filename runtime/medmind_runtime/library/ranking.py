"""Which passages answer a question, best first, or none where the library does not hold its subject.

Knows the tables of `medmind_runtime.library.index` and a question taken apart; writes nothing, loads no model.
"""

import math
import re
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from medmind_runtime.library.question import Asked, take_apart

_NAMED = 0.7
"""Share of the question's weight that the name of an answer's subject must hold: its rare words stand in the name."""
_HELD = 0.9
"""Share of the weight of the words beside the name's that name and passage must hold together."""
_SAID = 0.75
"""Share of the name's weight that the question must hold: a near subject has a rare word more ("subacute ...")."""
_APART = 0.25
"""What a word counts that stands apart from all words of the name ("my neighbour has gout since the flood")."""
_SIDE = 0.3
"""What the side that is asked for adds to the score; name, passage and question's share of the name add up to 1.8."""
_OPPOSITE = "non"
"""A word that makes another subject of a name however little it weighs ("non-Hodgkin lymphoma")."""
_NAMES = 8
_PASSAGES = 24
"""Subjects, and passages without one, that are looked at closely."""


class Topic(NamedTuple):
    """What an answer is about, and its type ("symptoms"); empty where its source does not say."""

    focus: str
    kind: str


class _Name(NamedTuple):
    """A subject of the library as far as the question names it: shares of weight, and words of the question."""

    text: str
    named: float
    said: float
    required: Mapping[str, float]
    """Words that a passage has to hold: those beside the name's, and the question's own after an earlier subject."""
    whole: float
    """Weight of these and the name's own, which every passage holds, its subject being a part of it."""

    @property
    def score(self) -> float:
        return self.named + self.said / 2


def weight(often: int, passages: int) -> float:
    """The weight of a word that stands in so many of the passages, in nats: the rarer, the more it tells."""
    return math.log((passages + 1) / (often + 0.5))


def best(base: sqlite3.Connection, passages: int, asked: Asked) -> list[int]:
    """Rows of passages, the best first, one of each answer."""
    words = {word: weight(_often(base, word), passages) for word in asked.subject}
    held_too = {word: weight(_often(base, word), passages) for word in asked.held}
    found: list[tuple[float, int]] = []
    for name in _names(base, words, held_too, asked):
        answers = base.execute("SELECT kind, first, last FROM answer WHERE focus = ? ORDER BY first", (name.text,))
        for kind, first, last in answers.fetchall():
            row, missing = _fullest(base, name.required, first, last)
            held = 1 - missing / name.whole
            if held >= _HELD:
                found.append((name.score + _SIDE * (held + asked.fits(kind)), -row))
    rows = [-row for _, row in sorted(found, reverse=True)]
    return rows if rows or asked.unnamed else _nameless(base, {**words, **held_too})


def _names(
    base: sqlite3.Connection, words: Mapping[str, float], held_too: Mapping[str, float], asked: Asked
) -> list[_Name]:
    """The subjects that the question names, the best first."""
    shared: dict[int, set[str]] = {}
    for word in words:
        for (row,) in base.execute("SELECT rowid FROM focus WHERE focus MATCH ?", (f'"{word}"',)):
            shared.setdefault(row, set()).add(word)
    found = []
    for row, here in shared.items():
        incidental = asked.incidental(here)
        near = {word for run in asked.runs if here & set(run) for word in run}
        weighed = {word: value if word in near else value * _APART for word, value in words.items()}
        same, total = sum(weighed[word] for word in here), sum(weighed.values())
        if total and same / (total - sum(weighed[word] for word in incidental)) >= _NAMED:
            text, whole = base.execute(
                "SELECT name, weight FROM focus JOIN focus_weight ON focus_weight.focus = focus.rowid"
                " WHERE focus.rowid = ?",
                (row,),
            ).fetchone()
            said = min(1.0, same / whole) if whole else 1.0
            turned = (_OPPOSITE in words) != (_OPPOSITE in re.findall(r"\w+", text.lower()))
            other = asked.unnamed and not len(here) == len(words) == len(take_apart(text).subject)
            if said >= _SAID and not turned and not other:
                required = {**{word: words[word] for word in words if word in near - here - incidental}, **held_too}
                found.append(_Name(text, same / total, said, required, same + sum(required.values())))
    return sorted(found, key=lambda name: (-name.score, name.text))[:_NAMES]


def _nameless(base: sqlite3.Connection, words: Mapping[str, float]) -> list[int]:
    """Rows of answers whose source names no subject, by BM25: they must hold the words and be about them."""
    if not words or base.execute("SELECT 1 FROM answer WHERE focus = '' LIMIT 1").fetchone() is None:
        return []
    rows = base.execute(
        "SELECT rowid FROM passage WHERE passage MATCH ? AND focus = '' ORDER BY bm25(passage) LIMIT ?",
        (" OR ".join(f'"{word}"' for word in words), _PASSAGES),
    ).fetchall()
    most = (1 - _HELD) * sum(words.values())
    rarest = max(words, key=lambda word: words[word])
    return [row for (row,) in rows if _fullest(base, words, row, row)[1] <= most and _is_about(base, rarest, row)]


def _is_about(base: sqlite3.Connection, word: str, row: int) -> bool:
    """Whether a passage without a subject's name is about a word: begins with it, or says it more than once."""
    (body,) = base.execute(
        "SELECT highlight(passage, 2, char(1), char(2)) FROM passage WHERE passage MATCH ? AND rowid = ?",
        (f'"{word}"', row),
    ).fetchone() or ("",)
    first = re.split(r"[.!?]\s", body, maxsplit=1)[0]
    return body.count("\1") > 1 or "\1" in first


def _fullest(base: sqlite3.Connection, words: Mapping[str, float], first: int, last: int) -> tuple[int, float]:
    """The first row of an answer that holds most of the words, and the weight of those that it does not hold."""
    missing = dict.fromkeys(range(first, last + 1), sum(words.values()))
    inside = "SELECT rowid FROM passage WHERE passage MATCH ? AND rowid BETWEEN ? AND ?"
    for word, value in words.items():
        for (row,) in base.execute(inside, (f'"{word}"', first, last)):
            missing[row] -= value
    row = min(missing, key=lambda one: (round(missing[one], 9), one))
    return row, missing[row]


def _often(base: sqlite3.Connection, word: str) -> int:
    """How many passages hold a word, in name, type or text."""
    found: int = base.execute("SELECT count(*) FROM passage WHERE passage MATCH ?", (f'"{word}"',)).fetchone()[0]
    return found
