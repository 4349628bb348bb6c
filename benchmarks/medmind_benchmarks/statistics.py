"""Estimates with their uncertainty: perplexity over held-out rows, paired comparisons, spread of repeated timings.

Knows numbers only: no model, no file, no unit of speed.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from medmind.errors import MedmindError

ONE_SIDED_95 = statistics.NormalDist().inv_cdf(0.95)
TWO_SIDED_95 = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error; `error` is None when fewer than two rows make it unknowable."""

    value: float
    error: float | None


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
