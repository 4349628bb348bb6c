"""Shares of questions answered rightly, with intervals, alone and paired. Knows counts only."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_Z = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Share:
    """`right` of `of`, and the ends of the 95 % interval of the share."""

    right: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself."""
        return self.right / self.of


@dataclass(frozen=True)
class Flips:
    """How answers changed from one model to another over the same questions.

    Attributes:
        lost: right before, wrong now.
        gained: wrong before, right now.
        of: questions.
        difference: share right now − share right before.
        low, high: its 95 % interval, paired.
        p: McNemar's exact two-sided probability that so uneven flips, or more uneven ones, come by chance.
    """

    lost: int
    gained: int
    of: int
    difference: float
    low: float
    high: float
    p: float


def share(right: Sequence[bool]) -> Share:
    """A share with Wilson's score interval (Wilson 1927), which holds near 0 and 1 and for few questions."""
    low, high = _wilson(sum(right), len(right))
    return Share(sum(right), len(right), low, high)


def flips(before: Sequence[bool], now: Sequence[bool]) -> Flips:
    """Compare two models over the same questions.

    The interval of the difference is Newcombe's hybrid score interval for paired proportions (Statistics in Medicine
    17, 1998, 2635–2650, method 10), the test McNemar's exact one: Binomial(lost + gained, ½).

    Args:
        before, now: shape (questions,), whether each was answered rightly; at least one.
    """
    of = len(now)
    both = sum(a and b for a, b in zip(before, now, strict=True))
    lost = sum(a and not b for a, b in zip(before, now, strict=True))
    gained = sum(b and not a for a, b in zip(before, now, strict=True))
    neither = of - both - lost - gained
    old, new = (both + lost) / of, (both + gained) / of
    old_low, old_high = _wilson(both + lost, of)
    new_low, new_high = _wilson(both + gained, of)
    phi = _phi(both, lost, gained, neither)
    down = _hybrid(new - new_low, old_high - old, phi)
    up = _hybrid(new_high - new, old - old_low, phi)
    return Flips(
        lost, gained, of, new - old, max(-1.0, new - old - down), min(1.0, new - old + up), mcnemar(lost, gained)
    )


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact two-sided p of `lost` and `gained` discordant pairs."""
    of, fewer = lost + gained, min(lost, gained)
    return min(1.0, 2 * math.fsum(math.comb(of, count) / 2**of for count in range(fewer + 1))) if of else 1.0


def _wilson(right: int, of: int) -> tuple[float, float]:
    value, square = right / of, _Z * _Z
    middle = value + square / (2 * of)
    half = _Z * math.sqrt(value * (1 - value) / of + square / (4 * of * of))
    low, high = (middle - half) / (1 + square / of), (middle + half) / (1 + square / of)
    return (0.0 if right == 0 else low), (1.0 if right == of else high)


def _hybrid(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _phi(both: int, lost: int, gained: int, neither: int) -> float:
    """Correlation of the paired answers, its numerator continuity-corrected as Newcombe does."""
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    product = both * neither - lost * gained
    corrected = max(product - (both + lost + gained + neither) / 2, 0.0) if product > 0 else product
    return corrected / math.sqrt(margins)
