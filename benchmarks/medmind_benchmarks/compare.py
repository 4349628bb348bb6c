"""What changed between two reports beyond noise, for better or worse. Knows figures; renders nothing, measures nothing.

The records beside a report pair two measurements of the same rows, chunks and questions, so that what makes a row hard
cancels; without them the standard errors are added in squares, which finds less.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from medmind_benchmarks import pairing
from medmind_benchmarks.figures import Choice, Fidelity, Perplexity, Speed
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.statistics import TWO_SIDED_95, Estimate

SCHEMA = "medmind-benchmark-comparison/1"
Verdict = Literal["better", "worse", "same", "within limits", "missing", "new"]


@dataclass(frozen=True)
class Limits:
    """How much worse a figure may become, beyond noise, before it is a regression.

    Attributes:
        perplexity, kl, size, memory, speed: relative to what it was; 0.01 = 1 %.
        accuracy: a difference of shares.
        kl_floor: nats; a KL divergence below it is as good as none.
    """

    perplexity: float = 0.005
    kl: float = 0.10
    kl_floor: float = 1e-4
    accuracy: float = 0.01
    size: float = 0.01
    memory: float = 0.05
    speed: float = 0.10


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
            limit; `missing` was measured before and is not now.
    """

    level: str
    figure: str
    before: float | None
    now: float | None
    change: float | None
    error: float | None
    paired: bool
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """All changes, and what keeps figures from being compared.

    Attributes:
        notes: conditions that differ, in words.
    """

    schema: str
    before: str
    now: str
    limits: Limits
    notes: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def regressions(self) -> list[Change]:
        """What became worse beyond noise and limit, or is not there any more."""
        return [one for one in self.changes if one.verdict in ("worse", "missing")]


def compare(
    before: Report,
    now: Report,
    limits: Limits,
    *,
    beside: tuple[Beside, Beside] = (Beside(), Beside()),
    names: tuple[str, str] = ("", ""),
) -> Comparison:
    """Compare the levels that two reports share by label; a level that is gone is a regression.

    Args:
        before, now: the reports.
        limits: what is a regression.
        beside: the records of single rows, chunks and questions of each.
        names: of the two reports.
    """
    notes = list(_notes(before, now))
    same = _Same(
        text=bool(before.held_out and now.held_out and before.held_out.token_digest == now.held_out.token_digest),
        raw=before.raw_text == now.raw_text,
        machine=_machine(before) == _machine(now),
    )
    labels = [level.label for level in before.levels]
    changes = []
    for level in before.levels:
        other = next((one for one in now.levels if one.label == level.label), None)
        if other is None:
            changes.append(Change(level.label, "level", 1.0, None, None, None, False, "missing"))
            continue
        changes += _level(level, other, limits, beside, same)
    changes += [
        Change(level.label, "level", None, 1.0, None, None, False, "new")
        for level in now.levels
        if level.label not in labels
    ]
    return Comparison(SCHEMA, names[0], names[1], limits, tuple(notes), tuple(changes))


@dataclass(frozen=True)
class _Same:
    """What two reports were measured on alike."""

    text: bool
    raw: bool
    machine: bool


def _level(before: Level, now: Level, limits: Limits, beside: tuple[Beside, Beside], same: _Same) -> Iterator[Change]:
    label = now.label
    rows, chunks = [one.rows for one in beside], [one.chunks for one in beside]
    old, new = before.figures, now.figures
    if same.text:
        ratio = pairing.perplexity(rows[0], rows[1], label)
        yield from _perplexity(label, "perplexity", old.answers, new.answers, ratio, limits)
        difference = pairing.divergence(rows[0], rows[1], label)
        yield from _kl(label, "mean KL", old.answers_fidelity, new.answers_fidelity, difference, limits)
    if same.raw:
        ratio = pairing.perplexity(chunks[0], chunks[1], label)
        yield from _perplexity(label, "perplexity, raw text", old.raw, new.raw, ratio, limits)
        difference = pairing.divergence(chunks[0], chunks[1], label)
        yield from _kl(label, "mean KL, raw text", old.raw_fidelity, new.raw_fidelity, difference, limits)
    for choice in before.figures.choices:
        yield from _accuracy(label, choice, _task(now, choice.task), beside, limits)
    yield _exact(label, "file size", before.size, now.size, limits.size)
    if same.machine:
        old_memory = before.memory.peak if before.memory else None
        new_memory = now.memory.peak if now.memory else None
        if old_memory is not None or new_memory is not None:
            yield _exact(label, "peak memory", old_memory, new_memory, limits.memory)
        for figure, old_speed, new_speed in (
            ("prompt speed", before.prompt, now.prompt),
            ("answer speed", before.generation, now.generation),
        ):
            if old_speed or new_speed:
                yield _ratio(label, figure, _pace(old_speed), _pace(new_speed), limits.speed, more_is_better=True)


def _perplexity(
    label: str, figure: str, before: Perplexity | None, now: Perplexity | None, paired: Estimate | None, limits: Limits
) -> Iterator[Change]:
    if before is None and now is None:
        return
    old, new = (one.perplexity if one else None for one in (before, now))
    if old is None or new is None or paired is None:
        yield _ratio(label, figure, old, new, limits.perplexity)
        return
    change = paired.value - 1
    verdict = _judge(change, paired.error, limits.perplexity)
    yield Change(label, figure, old.value, new.value, change, paired.error, True, verdict)


def _kl(
    label: str, figure: str, before: Fidelity | None, now: Fidelity | None, paired: Estimate | None, limits: Limits
) -> Iterator[Change]:
    if before is None and now is None:
        return
    old, new = (one.kl_mean if one else None for one in (before, now))
    if old and new and max(old.value, new.value) < limits.kl_floor:
        yield Change(label, figure, old.value, new.value, None, None, False, "same")
    elif old is None or new is None or paired is None:
        yield _ratio(label, figure, old, new, limits.kl, floor=limits.kl_floor)
    else:
        base = max(old.value, limits.kl_floor)
        change, error = paired.value / base, None if paired.error is None else paired.error / base
        yield Change(label, figure, old.value, new.value, change, error, True, _judge(change, error, limits.kl))


def _accuracy(
    label: str, before: Choice, now: Choice | None, beside: tuple[Beside, Beside], limits: Limits
) -> Iterator[Change]:
    if now is not None and before.digest != now.digest:
        return
    figure = f"right, {before.task}"
    if now is None:
        yield Change(label, figure, before.quoted.value, None, None, None, False, "missing")
        return
    old, new = before.quoted, now.quoted
    paired = pairing.answered(beside[0].questions, beside[1].questions, before.task, label)
    if paired:
        change, error = paired.difference.value, paired.difference.error
        verdict = _judge(-change, 0.0 if paired.p < 0.05 else math.inf, limits.accuracy)
    else:
        change, error = new.value - old.value, math.hypot(old.error or 0, new.error or 0)
        verdict = _judge(-change, error, limits.accuracy)
    yield Change(label, figure, old.value, new.value, change, error, paired is not None, verdict)


def _ratio(
    label: str,
    figure: str,
    before: Estimate | None,
    now: Estimate | None,
    limit: float,
    *,
    more_is_better: bool = False,
    floor: float = 0.0,
) -> Change:
    """Unpaired: the relative change with the errors of both, by the delta method."""
    if before is None or now is None:
        return _lone(label, figure, before.value if before else None, now.value if now else None)
    base = max(before.value, floor)
    change = (now.value - before.value) / base
    error = None
    if before.error is not None and now.error is not None:
        error = math.hypot(now.error / base, before.error * now.value / base**2)
    verdict = _judge(-change if more_is_better else change, error, limit)
    return Change(label, figure, before.value, now.value, change, error, False, verdict)


def _exact(label: str, figure: str, before: float | None, now: float | None, limit: float) -> Change:
    if before is None or now is None:
        return _lone(label, figure, before, now)
    change = (now - before) / before
    return Change(label, figure, before, now, change, None, False, _judge(change, None, limit))


def _lone(label: str, figure: str, before: float | None, now: float | None) -> Change:
    return Change(label, figure, before, now, None, None, False, "new" if before is None else "missing")


def _judge(worsening: float, error: float | None, limit: float) -> Verdict:
    """Beyond noise: zero lies outside the 95 % interval. Where no error is known, the limit stands for noise."""
    noise = TWO_SIDED_95 * error if error is not None else limit
    if abs(worsening) <= noise:
        return "same"
    if worsening < 0:
        return "better"
    return "worse" if worsening > limit else "within limits"


def _pace(speed: Speed | None) -> Estimate | None:
    if speed is None:
        return None
    found = speed.tokens_per_second
    error = None if found.deviation is None else found.deviation / math.sqrt(len(found.samples))
    return Estimate(found.mean, error)


def _task(level: Level, task: str) -> Choice | None:
    return next((one for one in level.figures.choices if one.task == task), None)


def _machine(report: Report) -> tuple[object, ...]:
    one = report.conditions
    return (one.cpu, one.cores, one.threads, one.context, one.contexts, one.load_modes, one.prompt_tokens)


def _notes(before: Report, now: Report) -> Iterator[str]:
    if before.held_out and now.held_out and before.held_out.token_digest != now.held_out.token_digest:
        yield "the held-out tokens differ: perplexity and KL of the answers are not compared"
    if _machine(before) != _machine(now):
        yield "machine, threads or contexts differ: memory and speed are not compared"
    if before.raw_text and now.raw_text and before.raw_text != now.raw_text:
        yield "the raw texts differ: perplexity and KL of raw text are not compared"
    if before.reference != now.reference:
        yield f"the references differ: {before.reference} and {now.reference}"
    if before.random_weights or now.random_weights:
        yield "random weights: quality means nothing"
