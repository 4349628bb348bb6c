"""What changed between two reports beyond noise, for better or worse. Knows figures; renders nothing, measures nothing.

Per-row log-likelihoods (rows.jsonl beside a report) pair two measurements of the same rows, so that what makes a row
hard cancels; without them the standard errors are added in squares, which finds less.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medmind_benchmarks import statistics
from medmind_benchmarks.figures import Choice, Fidelity, Speed
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.statistics import TWO_SIDED_95, Estimate

SCHEMA = "medmind-benchmark-comparison/1"
Rows = Sequence[Mapping[str, Any]]
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
    rows: tuple[Rows, Rows] = ((), ()),
    names: tuple[str, str] = ("", ""),
) -> Comparison:
    """Compare the levels that two reports share by label; a level that is gone is a regression.

    Args:
        before, now: the reports.
        limits: what is a regression.
        rows: per-row records of each, as rows.jsonl has them; empty where there are none.
        names: of the two reports.
    """
    notes = list(_notes(before, now))
    same_text = bool(before.held_out and now.held_out and before.held_out.token_digest == now.held_out.token_digest)
    same_machine = _machine(before) == _machine(now)
    labels = [level.label for level in before.levels]
    changes = []
    for level in before.levels:
        other = next((one for one in now.levels if one.label == level.label), None)
        if other is None:
            changes.append(Change(level.label, "level", 1.0, None, None, None, False, "missing"))
            continue
        changes += _level(level, other, limits, rows, same_text=same_text, same_machine=same_machine)
    changes += [
        Change(level.label, "level", None, 1.0, None, None, False, "new")
        for level in now.levels
        if level.label not in labels
    ]
    return Comparison(SCHEMA, names[0], names[1], limits, tuple(notes), tuple(changes))


def _level(
    before: Level, now: Level, limits: Limits, rows: tuple[Rows, Rows], *, same_text: bool, same_machine: bool
) -> Iterator[Change]:
    label = now.label
    if same_text:
        yield from _perplexity(before, now, limits, rows)
        for old, new in _pairs(before.figures.answers_fidelity, now.figures.answers_fidelity):
            yield _kl(label, old, new, limits)
    raw = before.figures.raw, now.figures.raw
    for old_raw, new_raw in _pairs(*raw):
        if old_raw is None or new_raw is None or old_raw.tokens == new_raw.tokens:
            yield _ratio(
                label,
                "perplexity, raw text",
                old_raw.perplexity if old_raw else None,
                new_raw.perplexity if new_raw else None,
                limits.perplexity,
            )
    for task in {one.task for one in before.figures.choices}:
        yield from _accuracy(label, _task(before, task), _task(now, task), limits)
    yield _exact(label, "file size", before.size, now.size, limits.size)
    if same_machine:
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


def _pairs(before: Any, now: Any) -> Iterator[tuple[Any, Any]]:
    if before is not None or now is not None:
        yield before, now


def _perplexity(before: Level, now: Level, limits: Limits, rows: tuple[Rows, Rows]) -> Iterator[Change]:
    if before.quality is None and now.quality is None:
        return
    old = before.quality.perplexity if before.quality else None
    new = now.quality.perplexity if now.quality else None
    theirs, ours, tokens = _paired_rows(now.label, rows)
    if old is None or new is None or not tokens:
        yield _ratio(now.label, "perplexity", old, new, limits.perplexity)
        return
    ratio = statistics.perplexity_ratio(ours, theirs, tokens)
    change, error = ratio.value - 1, ratio.error
    verdict = _judge(change, error, limits.perplexity)
    yield Change(now.label, "perplexity", old.value, new.value, change, error, True, verdict)


def _paired_rows(label: str, rows: tuple[Rows, Rows]) -> tuple[list[float], list[float], list[int]]:
    """Summed nats before and now of the rows that both have, and their tokens; empty unless all rows are the same."""
    before = {(one["row"], one["tokens"]): one["nll"].get(label) for one in rows[0]}
    now = {(one["row"], one["tokens"]): one["nll"].get(label) for one in rows[1]}
    if not before or before.keys() != now.keys() or None in before.values() or None in now.values():
        return [], [], []
    keys = [key for key in sorted(before) if key[1]]
    return [before[key] for key in keys], [now[key] for key in keys], [key[1] for key in keys]


def _kl(label: str, before: Fidelity | None, now: Fidelity | None, limits: Limits) -> Change:
    old, new = (one.kl_mean if one else None for one in (before, now))
    if old and new and max(old.value, new.value) < limits.kl_floor:
        return Change(label, "mean KL", old.value, new.value, None, None, False, "same")
    return _ratio(label, "mean KL", old, new, limits.kl, floor=limits.kl_floor)


def _accuracy(label: str, before: Choice | None, now: Choice | None, limits: Limits) -> Iterator[Change]:
    if before is None or (now is not None and before.digest != now.digest):
        return
    figure = f"right, {before.task}"
    if now is None:
        yield Change(label, figure, before.quoted.value, None, None, None, False, "missing")
        return
    old, new = before.quoted, now.quoted
    error = math.hypot(old.error or 0, new.error or 0)
    change = new.value - old.value
    verdict = _judge(-change, error, limits.accuracy)
    yield Change(label, figure, old.value, new.value, change, error, False, verdict)


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
    return Change(label, figure, before, now, change, None, False, _judge(change, 0.0, limit))


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
    if before.reference != now.reference:
        yield f"the references differ: {before.reference} and {now.reference}"
    if before.random_weights or now.random_weights:
        yield "random weights: quality means nothing"
