"""Whether two losses on the same rows differ: their difference row by row, with its standard error. Knows no model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

WITHIN, UNCERTAIN, CLEAR = "within its error", "uncertain", "clear"


@dataclass(frozen=True)
class Difference:
    """How much higher a loss is than another, in nats per answer token.

    Attributes:
        error: its standard error.
        rows: that it was measured on.
    """

    value: float
    error: float
    rows: int

    @property
    def words(self) -> str:
        """What may be said of it: within one standard error nothing, outside its 95 % interval that it is there."""
        if abs(self.value) <= self.error:
            return WITHIN
        return UNCERTAIN if abs(self.value) <= _quantile(self.rows - 1) * self.error else CLEAR


def paired(loss: Mapping[str, float], other: Mapping[str, float], counts: Mapping[str, int]) -> Difference:
    """`loss` less `other`, measured on the same rows.

    What makes a row hard makes it hard for both, so the difference of a row varies far less than its loss. The
    estimator is that of `evaluate.estimate`, over differences: r = Σ(aᵢ − bᵢ) / Σnᵢ.

    Args:
        loss, other: each row's summed loss.
        counts: each row's answer tokens.
    """
    rows: Sequence[str] = sorted(counts)
    tokens = sum(counts.values())
    differences = [loss[row] - other[row] for row in rows]
    mean = math.fsum(differences) / tokens
    residual = math.fsum((value - mean * counts[row]) ** 2 for value, row in zip(differences, rows, strict=True))
    spread = math.sqrt(len(rows) / (len(rows) - 1) * residual) / tokens if len(rows) > 1 else math.inf
    return Difference(mean, spread, len(rows))


def _quantile(freedom: int) -> float:
    """Student's t at 97.5 %, by the expansion of Abramowitz & Stegun 26.7.5: 2.0 for many rows, 3.1 for four."""
    x = NormalDist().inv_cdf(0.975)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))
