"""Shares of questions answered rightly, alone and paired, with their uncertainties. Knows counts only."""

import math
import statistics
from collections.abc import Sequence

from medmind_benchmarks.statistics import Estimate

_Z = statistics.NormalDist().inv_cdf(0.975)


def share(right: Sequence[bool]) -> Estimate:
    """The share that is right, with its standard error √(p(1 − p) / (n − 1)), as lm-evaluation-harness has it."""
    of = len(right)
    value = sum(right) / of
    return Estimate(value, math.sqrt(value * (1 - value) / (of - 1)) if of > 1 else None)


def paired_interval(before: Sequence[bool], now: Sequence[bool]) -> tuple[float, float]:
    """95 % interval of (share right now − share right before) over the same questions, at least one.

    Newcombe's hybrid score interval for paired proportions (Statistics in Medicine 17, 1998, 2635–2650, method 10).
    """
    of = len(now)
    both = sum(a and b for a, b in zip(before, now, strict=True))
    lost = sum(a and not b for a, b in zip(before, now, strict=True))
    gained = sum(b and not a for a, b in zip(before, now, strict=True))
    old, new = (both + lost) / of, (both + gained) / of
    old_low, old_high = wilson(both + lost, of)
    new_low, new_high = wilson(both + gained, of)
    phi = _phi(both, lost, gained, of - both - lost - gained)
    down = _hybrid(new - new_low, old_high - old, phi)
    up = _hybrid(new_high - new, old - old_low, phi)
    return max(-1.0, new - old - down), min(1.0, new - old + up)


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact two-sided p of `lost` and `gained` discordant pairs, Binomial(lost + gained, ½)."""
    of, fewer = lost + gained, min(lost, gained)
    return min(1.0, 2 * math.fsum(math.comb(of, count) / 2**of for count in range(fewer + 1))) if of else 1.0


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), which holds near 0 and 1 and for few questions."""
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
