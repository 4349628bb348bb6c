"""What changed between two reports in a level's answers: perplexity, fidelity, right choices. Knows figures, no level.

Paired wherever the records of the same rows, chunks and questions are at hand; else errors are added in squares.
"""

import math
from collections.abc import Iterator

from medmind_benchmarks import pairing, verdict
from medmind_benchmarks.figures import Choice, Fidelity, Perplexity
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.statistics import Estimate
from medmind_benchmarks.verdict import Change, Limits


def perplexity(
    label: str,
    figure: str,
    before: Perplexity | None,
    now: Perplexity | None,
    paired: Estimate | None,
    limits: Limits,
    *,
    alike: bool,
) -> Iterator[Change]:
    """Of one text; `paired` is the ratio over the same groups, None where they cannot be paired."""
    if before is None and now is None:
        return
    old, new = (one.perplexity if one else None for one in (before, now))
    if not alike:
        yield verdict.incomparable(label, figure, old.value if old else None, new.value if new else None)
    elif old is None or new is None or paired is None:
        yield verdict.ratio(label, figure, old, new, limits.perplexity)
    else:
        change = paired.value - 1
        found = verdict.judge(change, paired.error, limits.perplexity)
        least = verdict.least(paired.error, limits.perplexity)
        yield Change(label, figure, old.value, new.value, change, paired.error, True, found, limits.perplexity, least)


def fidelity(
    label: str,
    text: str,
    before: Fidelity | None,
    now: Fidelity | None,
    paired: Estimate | None,
    limits: Limits,
    *,
    alike: bool,
) -> Iterator[Change]:
    """Of one text; `text` ends the figures' names, `paired` is the difference of mean KL over the same groups.

    Median, 99 % quantile and RMS Δp are compared with their own errors, added in squares; the largest KL of one token
    is told where it grew beyond the limit, and not judged.
    """
    if before is None and now is None:
        return
    yield from _mean_kl(label, f"mean KL{text}", before, now, paired, limits, alike=alike)
    for figure, pick, limit, floor in (
        ("median KL", "kl_median", limits.kl, limits.kl_floor),
        ("99 % of KL", "kl_p99", limits.kl, limits.kl_floor),
        ("RMS Δp", "rms_delta_p", limits.kl, limits.delta_p_floor),
    ):
        old, new = (None if one is None else getattr(one, pick) for one in (before, now))
        if alike:
            yield verdict.ratio(label, figure + text, old, new, limit, floor=floor)
        else:
            yield verdict.incomparable(label, figure + text, old and old.value, new and new.value)
    if before is None or now is None or not alike:
        return
    same = now.same_top.value - before.same_top.value
    error = math.hypot(now.same_top.error or 0, before.same_top.error or 0)
    shares = before.same_top.value, now.same_top.value
    found = verdict.judge(-same, error, limits.accuracy)
    least = verdict.least(error, limits.accuracy)
    yield Change(label, f"same top token{text}", *shares, same, error, False, found, limits.accuracy, least)
    if now.kl_max > max(before.kl_max, limits.kl_floor) * (1 + limits.kl):
        grown = now.kl_max / max(before.kl_max, limits.kl_floor) - 1
        yield Change(label, f"largest KL{text}", before.kl_max, now.kl_max, grown, None, False, "not judged")


def _mean_kl(
    label: str,
    figure: str,
    before: Fidelity | None,
    now: Fidelity | None,
    paired: Estimate | None,
    limits: Limits,
    *,
    alike: bool,
) -> Iterator[Change]:
    old, new = (one.kl_mean if one else None for one in (before, now))
    if not alike:
        yield verdict.incomparable(label, figure, old.value if old else None, new.value if new else None)
    elif old is None or new is None or paired is None or max(old.value, new.value) < limits.kl_floor:
        yield verdict.ratio(label, figure, old, new, limits.kl, floor=limits.kl_floor)
    else:
        base = max(old.value, limits.kl_floor)
        change, error = paired.value / base, None if paired.error is None else paired.error / base
        found = verdict.judge(change, error, limits.kl)
        least = verdict.least(error, limits.kl)
        yield Change(label, figure, old.value, new.value, change, error, True, found, limits.kl, least)


def accuracy(
    label: str,
    task: str,
    before: Choice | None,
    now: Choice | None,
    beside: tuple[Beside, Beside],
    limits: Limits,
    *,
    alike: bool,
) -> Change:
    """Of one set of questions, by McNemar's test where they are the same ones."""
    figure = f"right, {task}"
    old, new = (one.quoted if one else None for one in (before, now))
    if old is None or new is None or not alike:
        return verdict.incomparable(label, figure, old.value if old else None, new.value if new else None)
    paired = pairing.answered(beside[0].questions, beside[1].questions, task, label)
    if paired:
        change, error = paired.difference.value, paired.difference.error
        found = verdict.judge(-change, 0.0 if paired.p < 0.05 else math.inf, limits.accuracy)
    else:
        change, error = new.value - old.value, math.hypot(old.error or 0, new.error or 0)
        found = verdict.judge(-change, error, limits.accuracy)
    least = verdict.least(error, limits.accuracy)
    return Change(label, figure, old.value, new.value, change, error, paired is not None, found, limits.accuracy, least)
