"""What changed between two reports in a level's answers: perplexity, fidelity, right choices. Knows figures, no level.

Paired wherever the records of the same rows, chunks and questions are at hand; else errors are added in squares.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from medmind_benchmarks import pairing, verdict
from medmind_benchmarks.figures import Choice, Fidelity, Perplexity
from medmind_benchmarks.pairing import Beside, Paired
from medmind_benchmarks.verdict import Change, Figure, Groups, Limits, Unit


@dataclass(frozen=True)
class On:
    """A text of one level.

    Attributes:
        label: of the level.
        text: what the names of its figures end with.
        alike: whether both reports measured on the same one, against the same reference where there is one.
        groups: of it, rows or chunks, that the errors before and now were estimated from.
    """

    label: str
    text: str
    alike: bool
    groups: Groups

    def figure(self, name: str, unit: Unit) -> Figure:
        """One of its figures."""
        return Figure(self.label, name + self.text, "answers", unit)


def perplexity(
    on: On,
    before: Perplexity | None,
    now: Perplexity | None,
    paired: Paired | None,
    limits: Limits,
) -> Iterator[Change]:
    """Of one text; `paired` is the ratio over the same groups, None without such."""
    if before is None and now is None:
        return
    of = on.figure("perplexity", "perplexity")
    old, new = (one.perplexity if one else None for one in (before, now))
    if not on.alike:
        yield verdict.incomparable(of, old, new)
    elif old is None or new is None or paired is None:
        yield verdict.ratio(of, old, new, limits.perplexity, groups=on.groups)
    else:
        yield verdict.judged(
            of,
            old.value,
            new.value,
            paired.change.value - 1,
            paired.change.error,
            limits.perplexity,
            paired=True,
            groups=paired.groups,
        )


def fidelity(
    on: On,
    before: Fidelity | None,
    now: Fidelity | None,
    paired: Paired | None,
    limits: Limits,
) -> Iterator[Change]:
    """Of one text; `paired` is the difference of mean KL over the same groups.

    Median, 99 % quantile and RMS Δp are compared with their own errors, added in squares; the largest KL of one token
    is told where it grew beyond the limit, and not judged.
    """
    if before is None and now is None:
        return
    yield _mean_kl(on, before, now, paired, limits)
    spread: tuple[tuple[str, Unit, str, float], ...] = (
        ("median KL", "nats", "kl_median", limits.kl_floor),
        ("99 % of KL", "nats", "kl_p99", limits.kl_floor),
        ("RMS Δp", "probability", "rms_delta_p", limits.delta_p_floor),
    )
    for name, unit, field, floor in spread:
        of = on.figure(name, unit)
        old, new = (None if one is None else getattr(one, field) for one in (before, now))
        if on.alike:
            yield verdict.ratio(of, old, new, limits.kl, floor=floor, groups=on.groups)
        else:
            yield verdict.incomparable(of, old, new)
    if before is None or now is None or not on.alike:
        return
    of = on.figure("same top token", "share")
    yield verdict.difference(of, before.same_top, now.same_top, limits.accuracy, groups=on.groups)
    if now.kl_max > max(before.kl_max, limits.kl_floor) * (1 + limits.kl):
        grown = now.kl_max / max(before.kl_max, limits.kl_floor) - 1
        yield verdict.told(on.figure("largest KL", "nats"), before.kl_max, now.kl_max, grown)


def _mean_kl(
    on: On,
    before: Fidelity | None,
    now: Fidelity | None,
    paired: Paired | None,
    limits: Limits,
) -> Change:
    of = on.figure("mean KL", "nats")
    old, new = (one.kl_mean if one else None for one in (before, now))
    if not on.alike:
        return verdict.incomparable(of, old, new)
    if old is None or new is None or paired is None or max(old.value, new.value) < limits.kl_floor:
        return verdict.ratio(of, old, new, limits.kl, floor=limits.kl_floor, groups=on.groups)
    base = max(old.value, limits.kl_floor)
    error = None if paired.change.error is None else paired.change.error / base
    return verdict.judged(
        of, old.value, new.value, paired.change.value / base, error, limits.kl, paired=True, groups=paired.groups
    )


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
