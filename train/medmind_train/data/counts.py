"""What became of the rows of a source: read, dropped and why, split; as numbers, table and JSON. Decides nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from medmind_train.data.components import focus_key
from medmind_train.data.split import Split


@dataclass(frozen=True)
class SkippedFile:
    """A file of the source that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts, in characters or in tokens."""

    median: int
    mean: float
    p95: int
    longest: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Lengths":
        """Measure one text or more, in characters."""
        return cls.of_sizes([len(text) for text in texts])

    @classmethod
    def of_sizes(cls, sizes: Sequence[int]) -> "Lengths":
        """Sum up one length or more; the percentiles are members of the sample (nearest rank)."""
        sizes = sorted(sizes)
        return cls(
            median=sizes[(len(sizes) - 1) // 2],
            mean=round(sum(sizes) / len(sizes), 1),
            p95=sizes[-(-len(sizes) * 95 // 100) - 1],
            longest=sizes[-1],
        )


@dataclass(frozen=True)
class Grouping:
    """How rows hang together, and what that cost.

    Attributes:
        components: groups of rows that are on one side as a whole.
        largest: rows of the largest one.
        links, links_across: near-duplicate answers that connect them; those between different focuses.
        known: held-out and validation rows dropped because training knows their answer, by source.
        recorded: rows held out because an earlier run held them out.
        recorded_lost: of these, rows that the source does not have any more.
        recorded_known: of these, rows that stay although training knows more than a fifth of their 13-grams.
    """

    components: int
    largest: int
    links: int
    links_across: int
    known: Mapping[str, int] = field(repr=False)
    recorded: int = 0
    recorded_lost: int = 0
    recorded_known: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Counts:
    """Numbers of rows, and iterable as `(what, rows)` in the order in which a reader asks for them.

    Attributes:
        read: rows found in the source.
        dropped: rows dropped, by reason.
        skipped_files: files that were passed over as a whole.
        train, validation, heldout: rows on each side; with everything dropped they are the sum of `read` and of the
            recorded rows that the source has lost.
        focuses: distinct focuses on each side, by its name.
        grouping: what hangs together.
        sources, question_types: kept rows of each, most frequent first.
        questions, answers: lengths of the user's and the assistant's turns, in characters.
    """

    read: int
    dropped: Mapping[str, int]
    skipped_files: tuple[SkippedFile, ...]
    train: int
    validation: int
    heldout: int
    focuses: Mapping[str, int]
    grouping: Grouping
    sources: Mapping[str, int] = field(repr=False)
    question_types: Mapping[str, int] = field(repr=False)
    questions: Lengths = field(repr=False)
    answers: Lengths = field(repr=False)

    @classmethod
    def of(
        cls,
        skipped: Sequence[SkippedFile],
        split: Split,
        grouping: Grouping,
        read: int,
        dropped: Mapping[str, int],
    ) -> "Counts":
        """Count what is left; the sides are not all empty."""
        kept = [row for side in split for row in side]
        turns = [message for row in kept for message in row.messages]
        return cls(
            read=read,
            dropped=dict(dropped),
            skipped_files=tuple(skipped),
            train=len(split.train),
            validation=len(split.validation),
            heldout=len(split.heldout),
            focuses={name: len({focus_key(row) for row in rows}) for name, rows in split._asdict().items()},
            grouping=grouping,
            sources=dict(Counter(row.source for row in kept).most_common()),
            question_types=dict(Counter(row.question_type for row in kept if row.question_type).most_common()),
            questions=Lengths.of([turn["content"] for turn in turns if turn["role"] == "user"]),
            answers=Lengths.of([turn["content"] for turn in turns if turn["role"] == "assistant"]),
        )

    def __iter__(self) -> Iterator[tuple[str, int]]:
        yield "read", self.read
        if self.grouping.recorded_lost:
            yield "recorded, not in the source", self.grouping.recorded_lost
        for reason, rows in self.dropped.items():
            yield f"dropped: {reason}", rows
        yield "train", self.train
        yield "validation", self.validation
        yield "held out", self.heldout

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "read": self.read,
            "dropped": dict(self.dropped),
            "skipped_files": [{"path": file.path, "reason": file.reason} for file in self.skipped_files],
            "train": self.train,
            "validation": self.validation,
            "heldout": self.heldout,
            "focuses": dict(self.focuses),
            "grouping": self.grouping.to_dict(),
            "sources": dict(self.sources),
            "question_types": dict(self.question_types),
            "length_chars": {"questions": vars(self.questions), "answers": vars(self.answers)},
        }

    def table(self) -> Table:
        """For a person: rows by fate with their share of what was read, and the focuses of each side."""
        table = Table("", "rows", "of read", "focuses", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        focuses = {name.replace("heldout", "held out"): f"{count:,}" for name, count in self.focuses.items()}
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
