"""The library file: passages of answers in SQLite's FTS5, and the subjects they are of. Knows no model."""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from medmind.artifacts import atomic_file
from medmind.errors import MedmindError
from medmind_runtime.library import ranking, suggestion
from medmind_runtime.library.question import Asked, take_apart
from medmind_runtime.library.ranking import Topic, weight
from medmind_runtime.library.read import Answer
from medmind_runtime.turn import Passage

FORMAT = "medmind-library/2"
PASSAGE_WORDS = 180
PASSAGES = 3
"""How many a question is answered from, at most."""
_NEIGHBOURS = 8
"""Passages of the same answer before one and as many behind it, at most, that go with it."""
_BACK = 8
"""Earlier questions that are looked through for the subject of one that names none."""
_TABLES = """
CREATE VIRTUAL TABLE passage USING fts5(
    focus, kind, body, source UNINDEXED, url UNINDEXED, tokenize='porter unicode61'
);
CREATE VIRTUAL TABLE focus USING fts5(name, tokenize='porter unicode61');
CREATE TABLE focus_weight(focus INTEGER PRIMARY KEY, weight REAL);
CREATE TABLE answer(focus TEXT, kind TEXT, first INTEGER PRIMARY KEY, last INTEGER);
CREATE INDEX answer_of ON answer(focus);
CREATE TABLE about(format TEXT);
"""


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
            base.executescript(_TABLES)
            base.execute("INSERT INTO about VALUES (?)", (FORMAT,))
            for answer in answers:
                count += 1
                first = passages + 1
                for body in cut(answer.text):
                    passages += 1
                    row = (passages, answer.focus, answer.kind, body, answer.source, answer.url)
                    base.execute("INSERT INTO passage(rowid, focus, kind, body, source, url) VALUES (?,?,?,?,?,?)", row)
                base.execute("INSERT INTO answer VALUES (?,?,?,?)", (answer.focus, answer.kind, first, passages))
            if not count:
                raise MedmindError("there is no answer in it, so no library was written")
            _weigh(base, passages)
            base.execute("INSERT INTO passage(passage) VALUES ('optimize')")
            base.commit()
        finally:
            base.close()
    return count, passages


def _weigh(base: sqlite3.Connection, passages: int) -> None:
    """List every focus once, with the weight of its words together."""
    base.execute("INSERT INTO focus(name) SELECT DISTINCT focus FROM answer WHERE focus <> '' ORDER BY focus")
    base.executescript(
        "CREATE VIRTUAL TABLE word USING fts5vocab(passage, row);"
        " CREATE VIRTUAL TABLE temp.at USING fts5vocab(main, focus, instance);"
    )
    often = dict(base.execute("SELECT term, doc FROM word"))
    total: dict[int, float] = {}
    for term, row in base.execute("SELECT DISTINCT term, doc FROM temp.at"):
        total[row] = total.get(row, 0.0) + weight(often[term], passages)
    base.executemany("INSERT INTO focus_weight VALUES (?, ?)", sorted(total.items()))
    base.execute("DROP TABLE temp.at")


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

    def find(self, question: str, count: int = PASSAGES, earlier: Sequence[str] = ()) -> list[Passage]:
        """The passages that fit best, at most `count`, one of each focus and type; none without its words.

        Args:
            question: as typed.
            count: most passages.
            earlier: questions of the conversation, the latest last. One that names no subject ("is it serious?"), or
                none that is in here, is asked of the latest subject that they name.
        """
        return [passage for _, passage in self.search(question, count, earlier)]

    def topics(self) -> set[Topic]:
        """The topics of all answers in it."""
        return {Topic(*row) for row in self._base.execute("SELECT DISTINCT focus, kind FROM answer")}

    def search(self, question: str, count: int = PASSAGES, earlier: Sequence[str] = ()) -> list[tuple[Topic, Passage]]:
        """What `find` finds, each with the topic of the answer that it is from."""
        found: dict[tuple[Topic, str], Passage] = {}
        for hit in self._rows(take_apart(question), earlier):
            focus, kind, body, source, url = self._base.execute(
                "SELECT focus, kind, body, source, url FROM passage WHERE rowid = ?", (hit,)
            ).fetchone()
            if (key := (Topic(focus, kind), source)) in found:
                continue
            text = body if not focus or focus.lower() in body.lower() else f"{focus}: {body}"
            found[key] = Passage(text, source, url, self._neighbours(hit))
            if len(found) == count:
                break
        return [(topic, passage) for (topic, _), passage in found.items()]

    def _neighbours(self, row: int) -> str:
        """What an answer says before and behind one of its passages."""
        first, last = self._base.execute(
            "SELECT first, last FROM answer WHERE first <= ? ORDER BY first DESC LIMIT 1", (row,)
        ).fetchone() or (row, row)
        bodies = self._base.execute(
            "SELECT body FROM passage WHERE rowid BETWEEN ? AND ? AND rowid <> ? ORDER BY rowid",
            (max(first, row - _NEIGHBOURS), min(last, row + _NEIGHBOURS), row),
        )
        return " ".join(body for (body,) in bodies)

    def _rows(self, asked: Asked, earlier: Sequence[str]) -> list[int]:
        """Rows of passages for the first reading of a question that has any."""
        for reading in self._readings(asked, earlier):
            if rows := ranking.best(self._base, self._size, reading):
                return rows
        return []

    def _readings(self, asked: Asked, earlier: Sequence[str]) -> Iterator[Asked]:
        if asked.unnamed and not asked.refers:
            return
        if not asked.unnamed:
            yield asked
        if subject := self._subject(earlier):
            yield from asked.after(subject)
        if asked.unnamed:
            yield asked

    def _subject(self, earlier: Sequence[str]) -> Asked | None:
        """The last question that named a subject, where there are passages on it; None where there are none."""
        subject: Asked | None = None
        for question in earlier[-_BACK:]:
            asked = take_apart(question)
            if ranking.best(self._base, self._size, asked):
                subject = asked
            elif not asked.unnamed and subject:
                went_on = (ranking.best(self._base, self._size, one) for one in asked.after(subject))
                subject = subject if any(went_on) else None
        return subject

    def meant(self, question: str) -> list[str]:
        """Names of subjects that a question without passages may have meant and misspelt, the likest first."""
        asked = suggestion.corrected(self._base, question, take_apart(question).subject)
        found = [topic.focus for text in asked for topic, _ in self.search(text, 1)]
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
