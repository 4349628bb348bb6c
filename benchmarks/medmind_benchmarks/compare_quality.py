"""What changed between two reports in a level's answers: perplexity, fidelity, right choices. Knows figures, no level.

Paired wherever the records of the same rows, chunks and questions are at hand; else errors are added in squares.
"""

from collections.abc import Iterator

from medmind_benchmarks import pairing, verdict
from medmind_benchmarks.figures import Choice, Fidelity, Perplexity
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.statistics import Estimate
from medmind_benchmarks.verdict import Change, Figure, Limits, Unit


def perplexity(
    label: str,
    text: str,
    before: Perplexity | None,
    now: Perplexity | None,
    paired: Estimate | None,
    limits: Limits,
    *,
    alike: bool,
) -> Iterator[Change]:
    """Of one text; `text` ends the figure's name, `paired` is the ratio over the same groups, None without such."""
    if before is None and now is None:
        return
    of = Figure(label, f"perplexity{text}", "answers", "perplexity")
    old, new = (one.perplexity if one else None for one in (before, now))
    if not alike:
        yield verdict.incomparable(of, old, new)
    elif old is None or new is None or paired is None:
        yield verdict.ratio(of, old, new, limits.perplexity)
    else:
        yield verdict.judged(of, old.value, new.value, paired.value - 1, paired.error, limits.perplexity, paired=True)


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
    yield _mean_kl(Figure(label, f"mean KL{text}", "answers", "nats"), before, now, paired, limits, alike=alike)
    spread: tuple[tuple[str, Unit, str, float], ...] = (
        ("median KL", "nats", "kl_median", limits.kl_floor),
        ("99 % of KL", "nats", "kl_p99", limits.kl_floor),
        ("RMS Δp", "probability", "rms_delta_p", limits.delta_p_floor),
    )
    for name, unit, field, floor in spread:
        of = Figure(label, name + text, "answers", unit)
        old, new = (None if one is None else getattr(one, field) for one in (before, now))
        if alike:
            yield verdict.ratio(of, old, new, limits.kl, floor=floor)
        else:
            yield verdict.incomparable(of, old, new)
    if before is None or now is None or not alike:
        return
    of = Figure(label, f"same top token{text}", "answers", "share")
    yield verdict.difference(of, before.same_top, now.same_top, limits.accuracy)
    if now.kl_max > max(before.kl_max, limits.kl_floor) * (1 + limits.kl):
        grown = now.kl_max / max(before.kl_max, limits.kl_floor) - 1
        yield verdict.told(Figure(label, f"largest KL{text}", "answers", "nats"), before.kl_max, now.kl_max, grown)


def _mean_kl(
    of: Figure,
    before: Fidelity | None,
    now: Fidelity | None,
    paired: Estimate | None,
    limits: Limits,
    *,
    alike: bool,
) -> Change:
    old, new = (one.kl_mean if one else None for one in (before, now))
    if not alike:
        return verdict.incomparable(of, old, new)
    if old is None or new is None or paired is None or max(old.value, new.value) < limits.kl_floor:
        return verdict.ratio(of, old, new, limits.kl, floor=limits.kl_floor)
    base = max(old.value, limits.kl_floor)
    error = None if paired.error is None else paired.error / base
    return verdict.judged(of, old.value, new.value, paired.value / base, error, limits.kl, paired=True)


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
    of = Figure(label, f"right, {task}", "answers", "share")
    old, new = (one.quoted if one else None for one in (before, now))
    if old is None or new is None or not alike:
        return verdict.incomparable(of, old, new)
    paired = pairing.answered(beside[0].questions, beside[1].questions, task, label)
    if paired is None:
        return verdict.difference(of, old, new, limits.accuracy)
    change, error = paired.difference.value, paired.difference.error
    return verdict.judged(
        of,
        old.value,
        new.value,
        change,
        error,
        limits.accuracy,
        paired=True,
        more_is_better=True,
        beyond_noise=paired.p < 0.05,
    )
