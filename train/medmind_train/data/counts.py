"""What became of the rows of a source: read, dropped and why, split; as numbers, table and JSON. Decides nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from medmind_train.data.rows import Row
from medmind_train.data.split import focus_key


@dataclass(frozen=True)
class SkippedFile:
    """A file of the source that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts in characters."""

    median: int
    mean: float
    p95: int
    longest: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Lengths":
        """Measure one text or more; the percentiles are members of the sample (nearest rank)."""
        sizes = sorted(len(text) for text in texts)
        return cls(
            median=sizes[(len(sizes) - 1) // 2],
            mean=round(sum(sizes) / len(sizes), 1),
            p95=sizes[-(-len(sizes) * 95 // 100) - 1],
            longest=sizes[-1],
        )


@dataclass(frozen=True)
class Counts:
    """Numbers of rows, and iterable as `(what, rows)` in the order in which a reader asks for them.

    Attributes:
        read: rows found in the source.
        dropped: rows dropped, by reason.
        skipped_files: files that were passed over as a whole.
        train, heldout: rows on each side; `read` is their sum plus everything dropped.
        focuses_train, focuses_heldout: distinct focuses on each side.
        sources, question_types: kept rows of each, most frequent first.
        questions, answers: lengths of the user's and the assistant's turns, in characters.
    """

    read: int
    dropped: Mapping[str, int]
    skipped_files: tuple[SkippedFile, ...]
    train: int
    heldout: int
    focuses_train: int
    focuses_heldout: int
    sources: Mapping[str, int] = field(repr=False)
    question_types: Mapping[str, int] = field(repr=False)
    questions: Lengths = field(repr=False)
    answers: Lengths = field(repr=False)

    @classmethod
    def of(
        cls,
        read: int,
        dropped: Mapping[str, int],
        skipped: Sequence[SkippedFile],
        train: Sequence[Row],
        heldout: Sequence[Row],
    ) -> "Counts":
        """Count what is left; `train` and `heldout` are not both empty."""
        kept = [*train, *heldout]
        turns = [message for row in kept for message in row.messages]
        return cls(
            read=read,
            dropped=dict(dropped),
            skipped_files=tuple(skipped),
            train=len(train),
            heldout=len(heldout),
            focuses_train=len({focus_key(row) for row in train}),
            focuses_heldout=len({focus_key(row) for row in heldout}),
            sources=dict(Counter(row.source for row in kept).most_common()),
            question_types=dict(Counter(row.question_type for row in kept if row.question_type).most_common()),
            questions=Lengths.of([turn["content"] for turn in turns if turn["role"] == "user"]),
            answers=Lengths.of([turn["content"] for turn in turns if turn["role"] == "assistant"]),
        )

    def __iter__(self) -> Iterator[tuple[str, int]]:
        yield "read", self.read
        for reason, rows in self.dropped.items():
            yield f"dropped: {reason}", rows
        yield "train", self.train
        yield "held out", self.heldout

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "read": self.read,
            "dropped": dict(self.dropped),
            "skipped_files": [{"path": file.path, "reason": file.reason} for file in self.skipped_files],
            "train": self.train,
            "heldout": self.heldout,
            "focuses": {"train": self.focuses_train, "heldout": self.focuses_heldout},
            "sources": dict(self.sources),
            "question_types": dict(self.question_types),
            "length_chars": {"questions": vars(self.questions), "answers": vars(self.answers)},
        }

    def table(self) -> Table:
        """For a person: rows by fate with their share of what was read, and the focuses of each side."""
        table = Table("", "rows", "of read", "focuses", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        focuses = {"train": f"{self.focuses_train:,}", "held out": f"{self.focuses_heldout:,}"}
        for what, rows in self:
            table.add_row(what, f"{rows:,}", f"{rows / max(self.read, 1):.1%}", focuses.get(what, ""))
        return table

    def lengths_table(self) -> Table:
        """For a person: how long questions and answers are, in characters."""
        table = Table("characters", "median", "mean", "p95", "longest", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for what, size in (("questions", self.questions), ("answers", self.answers)):
            table.add_row(what, f"{size.median:,}", f"{size.mean:,.0f}", f"{size.p95:,}", f"{size.longest:,}")
        return table
