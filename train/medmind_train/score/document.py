"""What `medmind-train score --json` prints, as typed records. Standard library only: the benchmarks read it too."""

from dataclasses import dataclass
from typing import Literal

SCHEMA = "medmind-score/1"

Stage = Literal["base", "adapter", "merged", "merged-nf4"]
STAGES: tuple[Stage, ...] = ("base", "adapter", "merged", "merged-nf4")


@dataclass(frozen=True)
class RowScore:
    """What the model makes of one row's answers.

    Attributes:
        row: its id.
        tokens: answer tokens scored.
        nll: their negative log-likelihood in nats, summed.
        kl: Σ over the tokens of KL(trained ‖ this), in nats; None without `--against`.
        same_top: tokens where both find the same token most likely; None without `--against`.
    """

    row: str
    tokens: int
    nll: float
    kl: float | None
    same_top: int | None


@dataclass(frozen=True)
class Divergence:
    """KL(trained ‖ this) of single tokens, in nats, over all rows; the mean is in the rows."""

    median: float
    p99: float
    most: float


@dataclass(frozen=True)
class ScoreDocument:
    """One stage of a run on its held-out tokens.

    Attributes:
        weights: type of the weights: `nf4`, or the 16-bit type by name.
        dtype: what was computed in.
        adapter: digest of the run's adapter.
        vocabulary: tokens that each distribution is over.
        token_digest: over every token id and which of them are scored.
        left_out: rows beyond the limits, or with nothing to score.
        divergence: None without `--against`.
        file: what `--write` wrote; None without.
        seconds: for scoring, loading left out.
    """

    schema: str
    stage: Stage
    run: str
    base: str
    adapter: str
    weights: str
    device: str
    dtype: str
    vocabulary: int
    tokens: int
    token_digest: str
    left_out: int
    rows: tuple[RowScore, ...]
    divergence: Divergence | None
    file: str | None
    seconds: float
    versions: dict[str, str]
