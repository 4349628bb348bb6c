"""What changed between two reports beyond noise, for better or worse. Knows figures; renders nothing, measures nothing.

The records beside a report pair two measurements of the same rows, chunks and questions, so that what makes a row hard
cancels; without them the standard errors are added in squares, which finds less.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from medmind_benchmarks import pairing, verdict
from medmind_benchmarks.figures import Choice, Fidelity, Figures, Perplexity
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.results import Level, RawText, Report
from medmind_benchmarks.statistics import Estimate, Repeated
from medmind_benchmarks.verdict import Change, Limits

SCHEMA = "medmind-benchmark-comparison/2"


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

    @property
    def compared(self) -> list[Change]:
        """What has a verdict."""
        return [one for one in self.changes if one.verdict != "not comparable"]


def compare(
    before: Report,
    now: Report,
    limits: Limits,
    *,
    beside: tuple[Beside, Beside] = (Beside(), Beside()),
    names: tuple[str, str] = ("", ""),
) -> Comparison:
    """Compare the levels that two reports share by label; a level or figure that is gone is a regression.

    Args:
        before, now: the reports.
        limits: what is a regression.
        beside: the records of single rows, chunks and questions of each.
        names: of the two reports.

    Raises:
        MedmindError: a size, perplexity or speed of zero.
    """
    same = _Same.of(before, now)
    labels = [level.label for level in before.levels]
    changes = []
    for level in before.levels:
        other = next((one for one in now.levels if one.label == level.label), None)
        if other is None:
            changes.append(verdict.lone(level.label, "level", 1.0, None))
            continue
        changes += _level(level, other, limits, beside, same)
    changes += [verdict.lone(level.label, "level", None, 1.0) for level in now.levels if level.label not in labels]
    return Comparison(SCHEMA, names[0], names[1], limits, tuple(_notes(before, now, same)), tuple(changes))


@dataclass(frozen=True)
class _Same:
    """What two reports were measured on alike; what only one of them measured does not differ.

    Attributes:
        tasks: names of question sets that hold other questions.
    """

    text: bool
    raw: bool
    machine: bool
    reference: bool
    raw_reference: bool
    tasks: frozenset[str]

    @staticmethod
    def of(before: Report, now: Report) -> "_Same":
        old, new = before.held_out, now.held_out
        asked, asks = _asked(before), _asked(now)
        return _Same(
            text=old is None or new is None or old.token_digest == new.token_digest,
            raw=before.raw_text is None or now.raw_text is None or _scored(before.raw_text) == _scored(now.raw_text),
            machine=_machine(before) == _machine(now),
            reference=before.reference == now.reference,
            raw_reference=before.reference == now.reference or bool(before.kl_base and now.kl_base),
            tasks=frozenset(task for task in asked.keys() & asks.keys() if asked[task] != asks[task]),
        )


def _level(before: Level, now: Level, limits: Limits, beside: tuple[Beside, Beside], same: _Same) -> Iterator[Change]:
    label = now.label
    yield verdict.exact(label, "file size", before.size, now.size, limits.size)
    yield from _figures(label, before.figures, now.figures, limits, beside, same)
    old, new = ({one.kv_type: one for one in level.kv} for level in (before, now))
    for kv_type in dict.fromkeys([*old, *new]):
        nothing = Figures(kv_type, None, None, None, None, (), (), (), None, None, None, None)
        # the records beside a report are of the 16-bit cache
        pair = old.get(kv_type, nothing), new.get(kv_type, nothing)
        for change in _figures(label, *pair, limits, (Beside(), Beside()), same):
            yield replace(change, figure=f"{change.figure}, KV cache {kv_type}")


def _figures(
    label: str, old: Figures, new: Figures, limits: Limits, beside: tuple[Beside, Beside], same: _Same
) -> Iterator[Change]:
    rows, chunks = (beside[0].rows, beside[1].rows), (beside[0].chunks, beside[1].chunks)
    ratio = pairing.perplexity(*rows, label)
    yield from _perplexity(label, "perplexity", old.answers, new.answers, ratio, limits, alike=same.text)
    difference = pairing.divergence(*rows, label)
    alike = same.text and same.reference
    yield from _kl(label, "mean KL", old.answers_fidelity, new.answers_fidelity, difference, limits, alike=alike)
    ratio = pairing.perplexity(*chunks, label)
    yield from _perplexity(label, "perplexity, raw text", old.raw, new.raw, ratio, limits, alike=same.raw)
    difference = pairing.divergence(*chunks, label)
    alike = same.raw and same.raw_reference
    yield from _kl(label, "mean KL, raw text", old.raw_fidelity, new.raw_fidelity, difference, limits, alike=alike)
    asked, asks = ({one.task: one for one in figures.choices} for figures in (old, new))
    for task in dict.fromkeys([*asked, *asks]):
        yield _accuracy(label, task, asked.get(task), asks.get(task), beside, limits, alike=task not in same.tasks)
    for change in _costs(label, old, new, limits):
        if same.machine:
            yield change
        elif change.before is not None and change.now is not None:
            yield verdict.incomparable(label, change.figure, change.before, change.now)


def _costs(label: str, old: Figures, new: Figures, limits: Limits) -> Iterator[Change]:
    """Memory, speeds and waits."""
    peaks = [{(one.load_mode, one.context): one.peak for one in figures.memory} for figures in (old, new)]
    for mode, context in dict.fromkeys([*peaks[0], *peaks[1]]):
        before, now = (found.get((mode, context)) for found in peaks)
        yield verdict.exact(label, f"peak memory, {mode}, {context:,} tokens", before, now, limits.memory)
    machines = [{one.context: one.machine for one in figures.needs} for figures in (old, new)]
    for context in dict.fromkeys([*machines[0], *machines[1]]):
        before, now = (found.get(context) for found in machines)
        if before is not None or now is not None:
            yield verdict.exact(label, f"smallest machine, {context:,} tokens", before, now, 0.0)
    for figure, speeds in (
        ("prompt speed", (old.prompt, new.prompt)),
        ("answer speed", (old.generation, new.generation)),
    ):
        if any(speeds):
            paces = [_mean(one.tokens_per_second if one else None) for one in speeds]
            yield verdict.ratio(label, figure, paces[0], paces[1], limits.speed, more_is_better=True)
    for figure, waits in (
        ("load seconds", (old.load_seconds, new.load_seconds)),
        ("first token seconds", (old.first_token_seconds, new.first_token_seconds)),
    ):
        if any(waits):
            first, second = map(_mean, waits)
            yield verdict.ratio(label, figure, first, second, limits.speed, floor=limits.seconds_floor)


def _perplexity(
    label: str,
    figure: str,
    before: Perplexity | None,
    now: Perplexity | None,
    paired: Estimate | None,
    limits: Limits,
    *,
    alike: bool,
) -> Iterator[Change]:
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
        yield Change(label, figure, old.value, new.value, change, paired.error, True, found)


def _kl(
    label: str,
    figure: str,
    before: Fidelity | None,
    now: Fidelity | None,
    paired: Estimate | None,
    limits: Limits,
    *,
    alike: bool,
) -> Iterator[Change]:
    if before is None and now is None:
        return
    old, new = (one.kl_mean if one else None for one in (before, now))
    if not alike:
        yield verdict.incomparable(label, figure, old.value if old else None, new.value if new else None)
    elif old is None or new is None or paired is None or max(old.value, new.value) < limits.kl_floor:
        yield verdict.ratio(label, figure, old, new, limits.kl, floor=limits.kl_floor)
    else:
        base = max(old.value, limits.kl_floor)
        change, error = paired.value / base, None if paired.error is None else paired.error / base
        found = verdict.judge(change, error, limits.kl)
        yield Change(label, figure, old.value, new.value, change, error, True, found)


def _accuracy(
    label: str,
    task: str,
    before: Choice | None,
    now: Choice | None,
    beside: tuple[Beside, Beside],
    limits: Limits,
    *,
    alike: bool,
) -> Change:
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
    return Change(label, figure, old.value, new.value, change, error, paired is not None, found)


def _mean(found: Repeated | None) -> Estimate | None:
    if found is None:
        return None
    return Estimate(found.mean, None if found.deviation is None else found.deviation / math.sqrt(len(found.samples)))


def _asked(report: Report) -> dict[str, str]:
    """Task → digest of its questions."""
    return {one.task: one.digest for level in report.levels for one in level.figures.choices}


def _scored(text: RawText) -> tuple[object, ...]:
    """What of a raw text was scored, whatever its file is called."""
    return text.digest, text.chunk, text.chunks


def _machine(report: Report) -> tuple[object, ...]:
    one = report.conditions
    return (one.cpu, one.cores, one.threads, one.context, one.contexts, one.load_modes, one.prompt_tokens)


def _notes(before: Report, now: Report, same: _Same) -> Iterator[str]:
    if not same.text:
        yield "the held-out tokens differ: perplexity and KL of the answers are not compared"
    if not same.raw:
        yield "the raw texts differ: perplexity and KL of raw text are not compared"
    for task in sorted(same.tasks):
        yield f"the questions of {task} differ: right answers to them are not compared"
    if not same.machine:
        yield "machine, threads or contexts differ: memory and speed are not compared"
    if not same.reference:
        yield f"the references differ, {before.reference} and {now.reference}: KL from them is not compared"
    if before.pick.label != now.pick.label:
        yield f"the pick changed: {before.pick.label or 'none'} before, {now.pick.label or 'none'} now"
    if before.random_weights or now.random_weights:
        yield "random weights: quality means nothing"
