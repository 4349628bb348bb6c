"""One figure of two reports, before and now: how it changed, and whether that is beyond noise. Knows no report."""

import math
from dataclasses import dataclass
from typing import Literal

from medmind.errors import MedmindError
from medmind_benchmarks.statistics import Estimate, joint_groups, two_sided_95

Verdict = Literal["better", "worse", "same", "within limits", "missing", "new", "not judged", "not comparable"]
Kind = Literal["presence", "size", "answers", "cost"]
"""What a figure tells of: that there is something, the file, what the model says, or what it costs on one machine."""
Unit = Literal["presence", "bytes", "perplexity", "nats", "probability", "share", "tokens/s", "seconds"]
"""What it is counted in. A share is compared by its difference, all else by its ratio."""
Groups = tuple[int, int] | None
"""Rows, chunks or repetitions that the errors before and now were estimated from; None: so many that they are known."""
_ROUNDING = 2.5e-4
"""Nats; one step of the 16 bits that `row_codec` keeps a log-probability in."""


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
class Figure:
    """What is compared: a level's label and the figure's name, for people; what it tells of and is counted in."""

    level: str
    name: str
    kind: Kind
    unit: Unit


@dataclass(frozen=True)
class Change:
    """One figure of one level, before and now.

    Attributes:
        level, figure, kind, unit: as in `Figure`.
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
    kind: Kind
    unit: Unit
    before: float | None
    now: float | None
    change: float | None
    error: float | None
    paired: bool
    verdict: Verdict
    limit: float | None = None
    least: float | None = None


def judged(
    of: Figure,
    before: float,
    now: float,
    change: float,
    error: float | None,
    limit: float,
    *,
    paired: bool = False,
    more_is_better: bool = False,
    groups: int | None = None,
    beyond_noise: bool | None = None,
) -> Change:
    """A change with its verdict: beyond noise, zero lies outside its 95 % interval.

    Args:
        change, error: as in `Change`; where no error is known, the limit stands for noise.
        limit: how much worse it may become.
        groups: rows, chunks or repetitions that `error` was estimated from; None: so many that it is known.
        beyond_noise: what a test of its own says, where there is one; else the interval decides.
    """
    noise = limit if error is None else two_sided_95(groups) * error
    worsening = -change if more_is_better else change
    if not (abs(change) > noise if beyond_noise is None else beyond_noise):
        verdict: Verdict = "same"
    elif worsening < 0:
        verdict = "better"
    else:
        verdict = "worse" if worsening > limit else "within limits"
    return _change(of, before, now, verdict, change, error, paired=paired, limit=limit, least=max(limit, noise))


def ratio(
    of: Figure,
    before: Estimate | None,
    now: Estimate | None,
    limit: float,
    *,
    more_is_better: bool = False,
    floor: float = 0.0,
    groups: Groups = None,
) -> Change:
    """Unpaired: the relative change with the errors of both, by the delta method.

    Args:
        floor: values below it are as good as none.
        groups: that the errors of both were estimated from.
    """
    if before is None or now is None:
        return lone(of, before, now)
    if floor and max(before.value, now.value) < floor:
        return _change(of, before.value, now.value, "same")
    change = _relative(of, before.value, now.value, floor)
    error, of_both = None, None
    if before.error is not None and now.error is not None:
        base = max(before.value, floor)
        errors = before.error * now.value / base**2, now.error / base
        error, of_both = math.hypot(*errors), groups and joint_groups(errors, groups)
    return judged(of, before.value, now.value, change, error, limit, more_is_better=more_is_better, groups=of_both)


def difference(of: Figure, before: Estimate, now: Estimate, limit: float, *, groups: Groups = None) -> Change:
    """Unpaired: the difference of two shares, of which more is better, with the errors of both."""
    errors = before.error or 0.0, now.error or 0.0
    of_both = joint_groups(errors, groups) if groups and before.error and now.error else None
    change = now.value - before.value
    return judged(of, before.value, now.value, change, math.hypot(*errors), limit, more_is_better=True, groups=of_both)


def exact(of: Figure, before: float | None, now: float | None, limit: float) -> Change:
    """A figure without noise of its own, such as a size."""
    if before is None or now is None:
        return lone(of, before, now)
    return judged(of, before, now, _relative(of, before, now), None, limit)


def lone(of: Figure, before: Estimate | float | None, now: Estimate | float | None) -> Change:
    """A figure that only one of the reports has."""
    return _change(of, _value(before), _value(now), "new" if before is None else "missing")


def incomparable(of: Figure, before: Estimate | float | None, now: Estimate | float | None) -> Change:
    """A figure of two different things; one that is gone is missing nevertheless."""
    if before is None or now is None:
        return lone(of, before, now)
    return _change(of, _value(before), _value(now), "not comparable")


def told(of: Figure, before: float, now: float, change: float) -> Change:
    """A figure that is no more than told: an extreme, whose noise nobody knows."""
    return _change(of, before, now, "not judged", change)


def _relative(of: Figure, before: float, now: float, floor: float = 0.0) -> float:
    """The change as a share of what was, or of the floor where that is more; what cannot be is not divided by."""
    _demand_possible(of, before, now)
    return (now - before) / max(before, floor)


def _value(figure: Estimate | float | None) -> float | None:
    return figure.value if isinstance(figure, Estimate) else figure


def _change(
    of: Figure,
    before: float | None,
    now: float | None,
    verdict: Verdict,
    change: float | None = None,
    error: float | None = None,
    *,
    paired: bool = False,
    limit: float | None = None,
    least: float | None = None,
) -> Change:
    _demand_possible(of, before, now)
    return Change(of.level, of.name, of.kind, of.unit, before, now, change, error, paired, verdict, limit, least)


def _demand_possible(of: Figure, before: float | None, now: float | None) -> None:
    for value, which in ((before, "earlier"), (now, "later")):
        if value is not None and not _possible(of.unit, value):
            raise MedmindError(
                f"{of.level}: its {of.name} is {value:g} in the {which} of the two reports, "
                "which nothing measured can be",
                "make that report again with: medmind-bench quants --force",
            )


def _possible(unit: Unit, value: float) -> bool:
    """A divergence is never negative, but computed it may be by as much as rounding."""
    if unit in ("share", "probability"):
        return 0 <= value <= 1
    if unit == "nats":
        return value >= -_ROUNDING
    return value > 1 - _ROUNDING if unit == "perplexity" else value > 0
