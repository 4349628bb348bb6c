"""How far one next-token distribution is from another, token by token, and what all tokens say together.

Knows log-probabilities and groups of tokens; no model, no file. Keeps a few numbers a token and nothing of the size of
the vocabulary.
"""

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from medmind_benchmarks import statistics
from medmind_benchmarks.figures import Fidelity, Histogram
from medmind_benchmarks.statistics import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = ("0.001", "0.01", "0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99", "0.999")
_LOW, _DECADES, _PER_DECADE = -9, 11, 8
_RESAMPLES = 200
_FLOOR = -16.0
"""llama.cpp leaves out what the base gives less than e^-16 when it reads a base file: the 16 bits hold no less."""


def log_softmax(logits: "NDArray[np.float32]") -> "NDArray[np.float64]":
    """Natural-log probabilities in float64, shape as given: (rows, vocabulary)."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


class Comparison:
    """Gathers what each token says."""

    def __init__(self, method: Literal["direct", "base-file"]) -> None:
        self._method: Literal["direct", "base-file"] = method
        self._kl: list[NDArray[np.float64]] = []
        self._delta: list[NDArray[np.float64]] = []
        self._same: list[NDArray[np.bool_]] = []
        self._group: list[NDArray[np.int64]] = []

    def add(
        self,
        group: int,
        reference: "NDArray[np.float64]",
        level: "NDArray[np.float64]",
        targets: "NDArray[np.int64]",
    ) -> None:
        """Take some tokens of one group.

        Args:
            group: its number.
            reference, level: log-probabilities, shape (rows, vocabulary).
            targets: shape (rows,), the tokens that stand in the text.
        """
        probability = np.exp(reference)
        difference = reference - level
        if self._method == "base-file":
            probability[reference <= _FLOOR] = 0
        rows = np.arange(len(targets))
        self._kl.append(np.einsum("rv,rv->r", probability, difference))
        self._delta.append(np.exp(level[rows, targets]) - np.exp(reference[rows, targets]))
        self._same.append(reference.argmax(axis=1) == level.argmax(axis=1))
        self._group.append(np.full(len(targets), group))

    def sums(self, groups: int) -> tuple[float, ...]:
        """KL divergence summed over each group's tokens, in nats."""
        return tuple(np.bincount(np.concatenate(self._group), np.concatenate(self._kl), groups).tolist())

    def fidelity(self) -> Fidelity:
        """What was gathered, with errors that take groups, not tokens, as independent.

        llama-perplexity prints ± over tokens, as if they were independent (`kl_divergence` of llama.cpp's
        tools/perplexity/perplexity.cpp): its errors of KL, Δp and the same top token are mostly the smaller ones.
        """
        kl, delta = np.concatenate(self._kl), np.concatenate(self._delta)
        same = np.concatenate(self._same).astype(np.float64)
        _, group = np.unique(np.concatenate(self._group), return_inverse=True)
        square = _mean(delta**2, group)
        rms = math.sqrt(square.value)
        order = np.argsort(kl, kind="stable")
        middle, high = _quantile_errors(kl[order], group[order], (0.5, 0.99))
        return Fidelity(
            method=self._method,
            kl_mean=_mean(kl, group),
            kl_median=Estimate(float(np.quantile(kl, 0.5)), middle),
            kl_p99=Estimate(float(np.quantile(kl, 0.99)), high),
            kl_max=float(kl.max()),
            kl_quantiles={name: float(np.quantile(kl, float(name))) for name in QUANTILES},
            kl_histogram=_histogram(kl),
            same_top=_mean(same, group),
            rms_delta_p=Estimate(rms, None if square.error is None else square.error / (2 * rms) if rms else 0.0),
            mean_delta_p=_mean(delta, group),
            tokens=len(kl),
        )


def _mean(values: "NDArray[np.float64]", group: "NDArray[np.int64]") -> Estimate:
    return statistics.ratio_of_sums(np.bincount(group, values).tolist(), np.bincount(group).tolist())


def _quantile_errors(
    ordered: "NDArray[np.float64]", group: "NDArray[np.int64]", fractions: tuple[float, ...]
) -> list[float | None]:
    """Standard errors of quantiles by the bootstrap of whole groups (Davison and Hinkley, 1997, section 3.8)."""
    groups = int(group.max()) + 1
    if groups < 2:
        return [None] * len(fractions)
    random = np.random.default_rng(0)
    found = np.empty((_RESAMPLES, len(fractions)))
    for turn in range(_RESAMPLES):
        times = np.bincount(random.integers(0, groups, groups), minlength=groups)
        reached = np.cumsum(times[group])
        found[turn] = ordered[np.searchsorted(reached, np.array(fractions) * reached[-1])]
    return [float(error) for error in found.std(axis=0, ddof=1)]


def _histogram(kl: "NDArray[np.float64]") -> Histogram:
    bins = _DECADES * _PER_DECADE
    edges = 10.0 ** (_LOW + np.arange(bins + 1) / _PER_DECADE)
    places = np.searchsorted(edges, kl, side="right") - 1
    inside = places[(places >= 0) & (places < bins)]
    counts = np.bincount(inside, minlength=bins)
    return Histogram(_LOW, _PER_DECADE, tuple(counts.tolist()), int((places < 0).sum()), int((places >= bins).sum()))
