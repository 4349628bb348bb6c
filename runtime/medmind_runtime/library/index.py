"""The library file: passages of answers in SQLite's FTS5, ranked by BM25. Knows passages, no questions and no model."""

import math
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from medmind.artifacts import atomic_file
from medmind.errors import MedmindError
from medmind_runtime.library.read import Answer
from medmind_runtime.turn import Passage

FORMAT = "medmind-library/1"
PASSAGE_WORDS = 180
PASSAGES = 3
"""How many a question is answered from, at most."""
_SMALL = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "could",
        "do",
        "does",
        "for",
        "from",
        "have",
        "has",
        "how",
        "i",
        "if",
        "in",
        "is",
        "it",
        "its",
        "me",
        "my",
        "of",
        "on",
        "or",
        "should",
        "that",
        "the",
        "their",
        "them",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "about",
        "tell",
        "please",
        "any",
        "much",
        "many",
        "get",
        "need",
        "know",
        "help",
        "was",
        "were",
        "am",
        "been",
    ]
)
_LEAST = 0.6
"""Share of the question's weight of words (by rarity) that the best passage must hold, or the library has nothing."""


class Topic(NamedTuple):
    """What an answer is about, and its type ("symptoms"); empty where its source does not say."""

    focus: str
    kind: str


def write(answers: Iterable[Answer], file: Path, *, force: bool = False) -> tuple[int, int]:
    """Write a library; returns how many answers and passages it has.

    Raises:
        MedmindError: there is no answer, or the file exists and `force` is not given.
    """
    count = passages = 0
    with atomic_file(file, force=force) as partial:
        partial.unlink(missing_ok=True)
        base = sqlite3.connect(partial)
        try:
            base.executescript(
                "CREATE VIRTUAL TABLE passage USING fts5(focus, kind, body, source UNINDEXED, url UNINDEXED,"
                " tokenize='porter unicode61'); CREATE TABLE about(format TEXT);"
            )
            base.execute("INSERT INTO about VALUES (?)", (FORMAT,))
            for answer in answers:
                count += 1
                for body in cut(answer.text):
                    passages += 1
                    row = (answer.focus, answer.kind, body, answer.source, answer.url)
                    base.execute("INSERT INTO passage VALUES (?, ?, ?, ?, ?)", row)
            if not count:
                raise MedmindError("there is no answer in it, so no library was written")
            base.execute("CREATE VIRTUAL TABLE word USING fts5vocab(passage, row)")
            base.execute("INSERT INTO passage(passage) VALUES ('optimize')")
            base.commit()
        finally:
            base.close()
    return count, passages


def cut(text: str) -> list[str]:
    """An answer in passages of at most `PASSAGE_WORDS` words, cut at the ends of sentences or lines."""
    made: list[list[str]] = [[]]
    for sentence in re.split(r"(?<=[.!?])\s+|\s{3,}|\n+", text.strip()):
        words = sentence.split()
        if made[-1] and len(made[-1]) + len(words) > PASSAGE_WORDS:
            made.append([])
        made[-1] += words
        while len(made[-1]) > PASSAGE_WORDS:
            made.append(made[-1][PASSAGE_WORDS:])
            made[-2] = made[-2][:PASSAGE_WORDS]
    return [" ".join(words) for words in made if words]


class Library:
    """A library that is open for reading.

    Raises:
        MedmindError: the file is missing or no library.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise MedmindError(f"there is no library {file}", "make one with: medmind-chat index SOURCE -o FILE")
        try:
            self._base = sqlite3.connect(
                f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            made_as = self._base.execute("SELECT format FROM about").fetchone()[0]
            self._size: int = self._base.execute("SELECT count(*) FROM passage").fetchone()[0]
        except (sqlite3.Error, TypeError) as error:
            raise MedmindError(
                f"{file} is no library: {error}", "make one with: medmind-chat index SOURCE -o FILE"
            ) from error
        if made_as != FORMAT:
            raise MedmindError(f"{file} has the format {made_as!r}, this medmind reads {FORMAT!r}", "index it again")

    def find(self, question: str, count: int = PASSAGES) -> list[Passage]:
        """The passages that fit best, at most `count`, one of each focus and type; none without its words."""
        return [passage for _, passage in self.search(question, count)]

    def topics(self) -> set[Topic]:
        """The topics of all answers in it."""
        return {Topic(*row) for row in self._base.execute("SELECT DISTINCT focus, kind FROM passage")}

    def search(self, question: str, count: int = PASSAGES) -> list[tuple[Topic, Passage]]:
        """What `find` finds, each with the topic of the answer that it is from."""
        words = list(dict.fromkeys(word for word in re.findall(r"\w+", question.lower()) if word not in _SMALL))[:40]
        if not words:
            return []
        terms = " OR ".join(f'"{word}"' for word in words)
        rows = self._base.execute(
            "SELECT rowid, focus, kind, body, source, url FROM passage WHERE passage MATCH ?"
            " ORDER BY bm25(passage, 4.0, 2.0, 1.0) LIMIT ?",
            (terms, 8 * count),
        ).fetchall()
        if not rows or self._held(words, rows[0][0]) < _LEAST:
            return []
        found: dict[tuple[Topic, str], Passage] = {}
        for _, focus, kind, body, source, url in rows:
            text = body if not focus or focus.lower() in body.lower() else f"{focus}: {body}"
            found.setdefault((Topic(focus, kind), source), Passage(text, source, url))
        return [(topic, passage) for (topic, _), passage in found.items()][:count]

    def _held(self, words: list[str], row: int) -> float:
        """The share of the words, each weighed by its rarity, that a passage holds."""
        total = here = 0.0
        for word in words:
            quoted = f'"{word}"'
            often = self._base.execute("SELECT count(*) FROM passage WHERE passage MATCH ?", (quoted,)).fetchone()[0]
            weight = math.log((self._size + 1) / (often + 1))
            total += weight
            same = "SELECT 1 FROM passage WHERE passage MATCH ? AND rowid = ?"
            here += weight if self._base.execute(same, (quoted, row)).fetchone() else 0
        return here / total if total else 0.0

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
