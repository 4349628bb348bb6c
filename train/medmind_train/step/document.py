"""What `medmind-train step --json` prints, as typed records. Standard library only: the benchmarks read it too."""

from dataclasses import dataclass
from typing import Literal

SCHEMA = "medmind-step/1"

Mode = Literal["fused", "reference", "usual", "liger", "unsloth", "lora", "full", "matmul"]
MODES: tuple[Mode, ...] = ("fused", "reference", "usual", "liger", "unsloth", "lora", "full", "matmul")
"""Ours, our plain path, then others; `matmul` is no step but the rate that a step is held against."""
OURS: tuple[Mode, ...] = ("fused", "reference")
Status = Literal["measured", "out of memory", "not installed", "unsupported", "failed"]


@dataclass(frozen=True)
class Work:
    """What a step was to do.

    Attributes:
        mode: who computes it.
        base: as it was named; `synthetic`: with random weights.
        parameters: weights of the base; `linear` those in its decoder layers' matrices, embedding and head not among
            them.
        batch, length: rows, and tokens of a row (with padded data: at most).
        documents: of a row of random tokens.
        data: source of the rows; None: random tokens, all of them supervised.
        packing: rows of `data` are packed; None without data.
        cap: bytes that torch may reserve on the card; None: all there are.
        vram: the budget as given to the fused step, `auto` or bytes.
        dtype: the compute type.
    """

    mode: Mode
    base: str
    synthetic: bool
    parameters: int
    linear: int
    batch: int
    length: int
    documents: int
    data: str | None
    packing: bool | None
    rank: int
    alpha: float
    targets: str
    cap: int | None
    vram: str
    dtype: str


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        static: allocated on the card with model, adapter and optimizer made, before the first step.
        load_allocated, load_reserved: torch's peaks up to there.
        step_allocated, step_reserved: torch's peaks over the steps, the warm-up among them.
        device_before: in use on the card before this process touched it, by the driver's word.
        device_peak: the most in use between steps, by the driver's word: context, managed memory and other processes
            included.
        device_total: of the card.
        host_peak: the most of this process that was resident.
        host_pinned: page-locked by the step, where it says so.

    All but `host_peak` are None where there is no card, or the run did not come so far.
    """

    static: int | None
    load_allocated: int | None
    load_reserved: int | None
    step_allocated: int | None
    step_reserved: int | None
    device_before: int | None
    device_peak: int | None
    device_total: int | None
    host_peak: int
    host_pinned: int | None

    @property
    def allocated(self) -> int | None:
        """The peak of loading and steps together."""
        return max((one for one in (self.load_allocated, self.step_allocated) if one is not None), default=None)

    @property
    def reserved(self) -> int | None:
        """The peak of loading and steps together."""
        return max((one for one in (self.load_reserved, self.step_reserved) if one is not None), default=None)

    @property
    def device_used(self) -> int | None:
        """What this process took of the card, if nothing else began or ended meanwhile."""
        return None if self.device_peak is None else self.device_peak - (self.device_before or 0)

    @property
    def peak(self) -> int:
        """Allocated on the card; the resident process where there is no card."""
        return self.host_peak if self.allocated is None else self.allocated


@dataclass(frozen=True)
class Timing:
    """The steps after the warm-up.

    Attributes:
        seconds: of each step, from token ids in host memory to the update's end.
        median: of these.
        tokens, real, supervised: positions computed, tokens that are no padding, tokens the loss is over; all steps.
        tokens_per_s, supervised_per_s: from the median where all steps are of one shape, from the sums where rows of
            data differ.
        loss_first, loss_last: nats per supervised token, of the first step (warm-up too) and the last.
    """

    seconds: tuple[float, ...]
    median: float
    tokens: int
    real: int
    supervised: int
    tokens_per_s: float
    supervised_per_s: float
    loss_first: float
    loss_last: float


@dataclass(frozen=True)
class Matmul:
    """The rate of square matrix products of random numbers.

    Attributes:
        size: rows and columns of each matrix.
        seconds: of each product.
        flops_per_s: 2 · size³ over the median.
    """

    size: int
    dtype: str
    seconds: tuple[float, ...]
    flops_per_s: float


@dataclass(frozen=True)
class Conditions:
    """Where it ran.

    Attributes:
        created: ISO 8601, UTC.
        device: `cuda` or `cpu`; `card` its name.
        versions: of what the figures depend on, the driver among them; absent: not installed.
        flags: what the step chose for itself (optimizer, checkpointing, …) and what the environment set.
    """

    created: str
    device: str
    card: str
    versions: dict[str, str]
    flags: dict[str, str]


@dataclass(frozen=True)
class StepDocument:
    """One measurement. `reason` says why there is no figure; `trained_bytes` are those of the trained tensors."""

    schema: str
    status: Status
    reason: str
    work: Work
    trained: int | None
    trained_bytes: int | None
    load_seconds: float | None
    memory: Memory
    timing: Timing | None
    matmul: Matmul | None
    conditions: Conditions
