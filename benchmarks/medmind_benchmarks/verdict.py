"""One figure of two reports, before and now: how it changed, and whether that is beyond noise. Knows no report."""

import math
from dataclasses import dataclass
from typing import Literal

from medmind.errors import MedmindError
from medmind_benchmarks.statistics import TWO_SIDED_95, Estimate

Verdict = Literal["better", "worse", "same", "within limits", "missing", "new", "not judged", "not comparable"]


@dataclass(frozen=True)
class Limits:
    """How much worse a figure may become, beyond noise, before it is a regression.

    Attributes:
        perplexity, kl, size, memory, speed: relative to what it was; 0.01 = 1 %. `speed` holds for seconds too.
        accuracy: a difference of shares.
        kl_floor: nats; a KL divergence below it is as good as none.
        delta_p_floor: an RMS Δp below it is as good as none.
        seconds_floor: a wait shorter than it is as good as none.
    """

    perplexity: float = 0.005
    kl: float = 0.10
    kl_floor: float = 1e-4
    accuracy: float = 0.01
    size: float = 0.01
    memory: float = 0.05
    speed: float = 0.10
    delta_p_floor: float = 1e-3
    seconds_floor: float = 0.1


@dataclass(frozen=True)
class Change:
    """One figure of one level, before and now.

    Attributes:
        level, figure: their names.
        before, now: values; None where it is not there.
        change: relative, (now − before) / before; a difference of shares for accuracies.
        error: standard error of `change`; None where the figure has none (sizes, peaks).
        paired: whether the same rows were compared with one another.
        verdict: `better` and `worse` are beyond noise and limit; `within limits` is worse beyond noise, not beyond the
            limit; `missing` was measured before and is not now; `not judged` is an extreme, whose noise nobody knows;
            `not comparable` was measured on something else.
        limit: what was allowed, as `change`; None where nothing is judged.
        least: the smallest worsening that would have been `worse`: the limit, or the noise where that is more.
    """

    level: str
    figure: str
    before: float | None
    now: float | None
    change: float | None
    error: float | None
    paired: bool
    verdict: Verdict
    limit: float | None = None
    least: float | None = None


def ratio(
    label: str,
    figure: str,
    before: Estimate | None,
    now: Estimate | None,
    limit: float,
    *,
    more_is_better: bool = False,
    floor: float = 0.0,
) -> Change:
    """Unpaired: the relative change with the errors of both, by the delta method.

    Args:
        floor: values below it are as good as none; without one, none can be.
    """
    if before is None or now is None:
        return lone(label, figure, before.value if before else None, now.value if now else None)
    if floor and max(before.value, now.value) < floor:
        return Change(label, figure, before.value, now.value, None, None, False, "same")
    if not floor:
        _demand_positive(label, figure, before.value, now.value)
    base = max(before.value, floor)
    change = (now.value - before.value) / base
    error = None
    if before.error is not None and now.error is not None:
        error = math.hypot(now.error / base, before.error * now.value / base**2)
    verdict = judge(-change if more_is_better else change, error, limit)
    return Change(label, figure, before.value, now.value, change, error, False, verdict, limit, least(error, limit))


def exact(label: str, figure: str, before: float | None, now: float | None, limit: float) -> Change:
    """A figure without noise of its own, such as a size."""
    if before is None or now is None:
        return lone(label, figure, before, now)
    _demand_positive(label, figure, before, now)
    change = (now - before) / before
    return Change(label, figure, before, now, change, None, False, judge(change, None, limit), limit, limit)


def lone(label: str, figure: str, before: float | None, now: float | None) -> Change:
    """A figure that only one of the reports has."""
    return Change(label, figure, before, now, None, None, False, "new" if before is None else "missing")


def incomparable(label: str, figure: str, before: float | None, now: float | None) -> Change:
    """A figure of two different things; one that is gone is missing nevertheless."""
    if before is None or now is None:
        return lone(label, figure, before, now)
    return Change(label, figure, before, now, None, None, False, "not comparable")


def judge(worsening: float, error: float | None, limit: float) -> Verdict:
    """Beyond noise: zero lies outside the 95 % interval. Where no error is known, the limit stands for noise."""
    noise = TWO_SIDED_95 * error if error is not None else limit
    if abs(worsening) <= noise:
        return "same"
    if worsening < 0:
        return "better"
    return "worse" if worsening > limit else "within limits"


def least(error: float | None, limit: float) -> float:
    """The smallest worsening that `judge` calls worse."""
    return limit if error is None else max(limit, TWO_SIDED_95 * error)


def _demand_positive(label: str, figure: str, before: float, now: float) -> None:
    for value, which in ((before, "earlier"), (now, "later")):
        if not value > 0:
            raise MedmindError(
                f"{label}: its {figure} is {value:g} in the {which} of the two reports, which nothing measured can be",
                "make that report again with: medmind-bench quants --force",
            )
