"""Estimates with their uncertainty: perplexity over held-out rows, paired comparisons, spread of repeated timings.

Knows numbers only: no model, no file, no unit of speed.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from medmind.errors import MedmindError


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error; `error` is None when fewer than two rows make it unknowable."""

    value: float
    error: float | None

    def __post_init__(self) -> None:
        """Raise ValueError for what no measurement gives."""
        if self.error is not None and self.error < 0:
            raise ValueError(f"a standard error of {self.error:g} is none")


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing: their median, extremes and the samples in the order they were taken."""

    median: float
    low: float
    high: float
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Repeated:
    """Repetitions of one measurement: mean, standard deviation (n − 1; None for one alone) and the samples in order."""

    mean: float
    deviation: float | None
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for what no measurement gives."""
        if not self.samples:
            raise ValueError("it has no samples")
        if (self.deviation is None) != (len(self.samples) == 1) or (self.deviation or 0) < 0:
            raise ValueError(f"{len(self.samples)} samples have no deviation of {self.deviation}")


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Perplexity over rows, exp(Σ nll / Σ tokens), with the row-clustered standard error.

    Tokens of one row are not independent, rows are: the mean negative log-likelihood is a ratio estimator over
    clusters, Var(r) ≈ m/(m−1) · Σ (nllᵢ − r·tokensᵢ)² / (Σ tokens)² (Cochran, Sampling Techniques, 3rd ed., section
    6.4, without the finite-population factor), and the delta method gives SE(exp r) = exp(r)·SE(r).

    Args:
        nll: shape (rows,), negative natural-log likelihood summed over a row's answer tokens.
        tokens: shape (rows,), how many tokens were summed.

    Raises:
        MedmindError: no tokens at all.
    """
    rate = _rate(nll, tokens)
    value = math.exp(rate)
    residuals = [value * (row - rate * count) for row, count in zip(nll, tokens, strict=True)]
    return Estimate(value, _clustered_error(residuals, sum(tokens)))


def ratio_of_sums(sums: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Mean over all items of all groups, Σ sums / Σ counts, with the group-clustered standard error of `perplexity`.

    Args:
        sums: shape (groups,), values summed over a group's items.
        counts: shape (groups,), items of each.
    """
    rate = _rate(sums, counts)
    residuals = [total - rate * count for total, count in zip(sums, counts, strict=True)]
    return Estimate(rate, _clustered_error(residuals, sum(counts)))


def perplexity_of_tokens(nll: float, squares: float, tokens: int) -> Estimate:
    """Perplexity with the standard error that llama-perplexity gives, which takes tokens as independent.

    Tokens of one chunk are not: over chunks the error would be larger. This one is what llama-perplexity prints, and no
    verdict rests on it.

    Source: `perplexity` of llama.cpp's tools/perplexity/perplexity.cpp.

    Args:
        nll, squares: negative log-likelihoods in nats, and their squares, summed over the tokens.
        tokens: how many.
    """
    mean = nll / tokens
    variance = squares / tokens - mean * mean
    value = math.exp(mean)
    return Estimate(value, value * math.sqrt(max(0.0, variance) / (tokens - 1)) if tokens > 1 else None)


def perplexity_ratio(nll: Sequence[float], reference: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """perplexity / reference perplexity over the same rows, paired.

    ln of the ratio is Σ (nllᵢ − referenceᵢ) / Σ tokens, a ratio estimator of its own: what makes a row hard for both
    models cancels, so its error is far smaller than that of either perplexity.

    Args:
        nll: shape (rows,), summed nats.
        reference: shape (rows,), the same rows under the reference model.
        tokens: shape (rows,).
    """
    return perplexity([ours - theirs for ours, theirs in zip(nll, reference, strict=True)], tokens)


def perplexity_difference(nll: Sequence[float], reference: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """perplexity − reference perplexity over the same rows, paired.

    Delta method on exp(r) − exp(s): a row's residual is exp(r)(nllᵢ − r·tokensᵢ) − exp(s)(referenceᵢ − s·tokensᵢ).

    Args:
        nll: shape (rows,), summed nats.
        reference: shape (rows,), the same rows under the reference model.
        tokens: shape (rows,).
    """
    ours, theirs = _rate(nll, tokens), _rate(reference, tokens)
    residuals = [
        math.exp(ours) * (a - ours * count) - math.exp(theirs) * (b - theirs * count)
        for a, b, count in zip(nll, reference, tokens, strict=True)
    ]
    return Estimate(math.exp(ours) - math.exp(theirs), _clustered_error(residuals, sum(tokens)))


def spread(samples: Sequence[float]) -> Spread:
    """Median and extremes: a noisy machine delays now and then, which moves a mean and leaves a median."""
    return Spread(statistics.median(samples), min(samples), max(samples), tuple(samples))


def repeated(samples: Sequence[float]) -> Repeated:
    """Mean ± standard deviation, as llama-bench gives its repetitions."""
    return Repeated(statistics.fmean(samples), statistics.stdev(samples) if len(samples) > 1 else None, tuple(samples))


def one_sided_95(groups: int | None) -> float:
    """How many standard errors a 95 % bound lies from its estimate.

    Args:
        groups: independent ones that the error was estimated from, such as rows; None: so many that it is known.
    """
    return _quantile(0.05, groups)


def two_sided_95(groups: int | None) -> float:
    """How many standard errors a 95 % interval reaches to either side; `groups` as in `one_sided_95`."""
    return _quantile(0.025, groups)


def joint_groups(errors: tuple[float, float], groups: tuple[int, int]) -> int:
    """As how many groups two independent errors, added in squares, count.

    Welch and Satterthwaite's degrees of freedom (Welch, Biometrika 34, 1947, 28–35), rounded down, and one.

    Args:
        errors: standard errors.
        groups: that each was estimated from, at least two.
    """
    squares = [error**2 for error in errors]
    spread = math.fsum(square**2 / max(of - 1, 1) for square, of in zip(squares, groups, strict=True))
    return int(sum(squares) ** 2 / spread) + 1 if spread else sum(groups) - 1


@lru_cache
def _quantile(tail: float, groups: int | None) -> float:
    """What is exceeded with probability `tail`: of Student's t with groups − 1 degrees of freedom, or of a normal."""
    normal = statistics.NormalDist().inv_cdf(1 - tail)
    if groups is None or groups < 2:  # without two there is no error to multiply
        return normal
    low, high = normal, math.tan(math.pi * (0.5 - tail))  # one degree of freedom has the widest tails
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, groups - 1) < 1 - 2 * tail else (low, middle)
    return high


def _within(distance: float, freedom: int) -> float:
    """P(|t| < distance), by the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(distance / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    first = 2 + freedom % 2
    term = total = 1.0 if freedom % 2 == 0 else math.cos(angle)
    for factor in range(first, freedom - freedom % 2, 2):
        term *= (factor - 1) / factor * square
        total += term
    if freedom % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))


def _rate(nll: Sequence[float], tokens: Sequence[int]) -> float:
    total = sum(tokens)
    if total <= 0:
        raise MedmindError("there is no answer token to measure perplexity on", "give held-out rows with answers")
    return math.fsum(nll) / total


def _clustered_error(residuals: Sequence[float], total: int) -> float | None:
    rows = len(residuals)
    if rows < 2:
        return None
    return math.sqrt(rows / (rows - 1) * math.fsum(value * value for value in residuals)) / total
