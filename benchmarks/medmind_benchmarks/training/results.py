"""What a benchmark of training steps found, as typed records, and their JSON: all that tables and pictures are made of.

Knows no rendering and measures nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmind.artifacts import read_json
from medmind_benchmarks.statistics import Spread
from medmind_benchmarks.typed_json import decode_as
from medmind_train.step.document import Memory, Mode, Status

SCHEMA = "medmind-benchmark-training/2"
FLOOR = 6
"""FLOP per token and weight of the decoder's matrices: forward, backward to the inputs, and the forward once more, as
the weights are frozen and activations are computed again. A full fine-tune does 8: the weights' gradients come on top.
"""

Fill = Literal["random", "packed", "padded"]
"""Rows of random tokens, or of real data, packed or padded."""


@dataclass(frozen=True)
class Shape:
    """Rows of a step, and tokens of a row (of padded rows: at most)."""

    batch: int
    length: int

    def __str__(self) -> str:
        """As `4×1024`."""
        return f"{self.batch}×{self.length}"


@dataclass(frozen=True)
class Speed:
    """Over the repeats.

    Attributes:
        tokens_per_s: positions a second.
        supervised_per_s: of them those that the loss is over.
        step_seconds: the median step of each repeat.
        relative: mode -> how many times as fast as that, repeat by repeat, in supervised tokens a second.
    """

    tokens_per_s: Spread
    supervised_per_s: Spread
    step_seconds: Spread
    relative: dict[str, Spread]


@dataclass(frozen=True)
class AgainstFull:
    """A row over the full fine-tune at its shape: 0.08 is 8 % of that.

    Attributes:
        memory: of the peaks.
        trained: of the trained parameters.
        kept: of what has to be kept of a training, an adapter against all weights.
        seconds: for as many tokens.
    """

    memory: float
    trained: float
    kept: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One mode at one shape.

    Attributes:
        status, reason: `measured`, or why something is missing.
        card: where it ran: a speed holds for this card and no other.
        memory: of the repeat with the highest peak, whole.
        floor_share: the least time its arithmetic can take (`FLOOR`) over the time it took.
        seconds_per_million, cost_per_million: for a million positions; the cost by the price of an hour.
        against_full: None where no full fine-tune was measured at this shape, and of that itself.
        padding: share of the positions that are padding.
        trained, trained_bytes: parameters, and what they take in a file.
        loss_first, loss_last: nats per supervised token, of the first repeat.
        load_seconds: median.
        versions, flags: as the cell told them.
    """

    mode: Mode
    shape: Shape
    fill: Fill
    status: Status
    reason: str
    card: str
    memory: Memory | None
    speed: Speed | None
    floor_share: float | None
    seconds_per_million: float | None
    cost_per_million: float | None
    against_full: AgainstFull | None
    padding: float | None
    trained: int | None
    trained_bytes: int | None
    loss_first: float | None
    loss_last: float | None
    load_seconds: float | None
    versions: dict[str, str]
    flags: dict[str, str]

    @property
    def label(self) -> str:
        """The name in tables."""
        return f"{self.shape} {self.mode}"


@dataclass(frozen=True)
class Conditions:
    """Under what conditions the figures hold.

    Attributes:
        created: ISO 8601, UTC.
        seconds: how long the whole benchmark took.
        card, device: what computed.
        card_memory: bytes; None on a CPU.
        memory: bytes of the machine, within the control group's limit.
        load_before: load average before the first cell; above zero, other programs were at work.
        parameters, linear: weights of the base, and of its decoder layers' matrices.
        matmul: FLOP a second of large matrix products, before the first cell and after the last.
        cap: bytes torch could reserve; None: all.
        price: of an hour.
    """

    created: str
    seconds: float
    card: str
    device: str
    card_memory: int | None
    cpu: str
    cores: int
    memory: int
    load_before: float | None
    system: str
    versions: dict[str, str]
    base: str
    synthetic: bool
    parameters: int
    linear: int
    matmul: Spread | None
    matmul_dtype: str
    dtype: str
    rank: int
    targets: str
    cap: int | None
    vram: str
    steps: int
    warmup: int
    repeats: int
    data: str | None
    price: float | None


@dataclass(frozen=True)
class Report:
    """One run of `medmind-bench train`."""

    schema: str
    conditions: Conditions
    rows: tuple[Row, ...]

    def at(self, shape: Shape, fill: Fill = "random") -> tuple[Row, ...]:
        """The rows that are compared with each other."""
        return tuple(row for row in self.rows if row.shape == shape and (row.fill == "random") == (fill == "random"))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """In their order."""
        return tuple(dict.fromkeys(row.shape for row in self.rows))

    @property
    def modes(self) -> tuple[Mode, ...]:
        """In their order."""
        return tuple(dict.fromkeys(row.mode for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Report":
        """The report a document holds.

        Raises:
            MedmindError: another schema, or a field missing or of another kind.
        """
        return decode_as(
            Report, SCHEMA, document, what="benchmark of training", how="make one with: medmind-bench train"
        )


def against_full(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, those over random tokens with their figures against the full fine-tune at the same batch."""
    whole = {row.shape: row for row in rows if row.mode == "full" and row.fill == "random"}
    return tuple(
        dataclasses.replace(row, against_full=_ratios(row, whole[row.shape]))
        if row.fill == "random" and row.mode != "full" and row.shape in whole
        else row
        for row in rows
    )


def _ratios(row: Row, full: Row) -> AgainstFull | None:
    if not (row.memory and full.memory and row.seconds_per_million and full.seconds_per_million):
        return None
    if not (row.trained and full.trained and row.trained_bytes and full.trained_bytes):
        return None
    return AgainstFull(
        memory=row.memory.peak / full.memory.peak,
        trained=row.trained / full.trained,
        kept=row.trained_bytes / full.trained_bytes,
        seconds=row.seconds_per_million / full.seconds_per_million,
    )


def read_report(path: Path) -> Report:
    """The report in a report.json."""
    return Report.from_json(read_json(path))
