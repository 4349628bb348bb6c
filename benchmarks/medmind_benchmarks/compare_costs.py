"""What changed between a level's memory, speeds and waits, and what these depend on. Knows no answers."""

import math
from collections.abc import Iterator

from medmind_benchmarks import verdict
from medmind_benchmarks.figures import Figures
from medmind_benchmarks.results import Report
from medmind_benchmarks.statistics import Estimate, Repeated
from medmind_benchmarks.verdict import Change, Figure, Limits, Unit


def memory_depends_on(report: Report) -> tuple[object, ...]:
    """Beside load mode and context, which each figure has of its own. Chat chooses by threads."""
    one = report.conditions
    chosen = (one.threads,) if one.memory_as_chat else (one.batch, one.flash)
    return one.cpu, one.memory_as_chat, *chosen


def speed_depends_on(report: Report) -> tuple[object, ...]:
    """Not on the contexts and load modes that memory was measured in."""
    one = report.conditions
    settings = one.threads, one.context, one.batch, one.flash
    return one.cpu, one.cores, *settings, one.prompt_tokens, one.generated_tokens


def memory(label: str, old: Figures, new: Figures, limits: Limits) -> Iterator[Change]:
    """Peaks and what was allocated, by load mode and context; the smallest machine, by context."""
    measured = [{(one.load_mode, one.context): one for one in figures.memory} for figures in (old, new)]
    for mode, context in dict.fromkeys([*measured[0], *measured[1]]):
        place = f"{mode}, {context:,} tokens"
        before, now = (found.get((mode, context)) for found in measured)
        peaks = before.peak if before else None, now.peak if now else None
        yield verdict.exact(_cost(label, f"peak memory, {place}", "bytes"), *peaks, limits.memory)
        allocated = before.anonymous if before else None, now.anonymous if now else None
        if None not in allocated:  # not every system tells it
            yield verdict.exact(_cost(label, f"allocated memory, {place}", "bytes"), *allocated, limits.memory)
    machines = [{one.context: one.machine for one in figures.needs} for figures in (old, new)]
    for context in dict.fromkeys([*machines[0], *machines[1]]):
        needed = machines[0].get(context), machines[1].get(context)
        if any(needed):
            yield verdict.exact(_cost(label, f"smallest machine, {context:,} tokens", "bytes"), *needed, 0.0)


def speed(label: str, old: Figures, new: Figures, limits: Limits) -> Iterator[Change]:
    """Speeds and waits."""
    for name, speeds in (
        ("prompt speed", (old.prompt, new.prompt)),
        ("answer speed", (old.generation, new.generation)),
    ):
        if any(speeds):
            of = _cost(label, name, "tokens/s")
            paces = [one.tokens_per_second if one else None for one in speeds]
            yield _repeated(of, paces[0], paces[1], limits.speed, more_is_better=True)
    for name, waits in (
        ("load seconds", (old.load_seconds, new.load_seconds)),
        ("first token seconds", (old.first_token_seconds, new.first_token_seconds)),
    ):
        if any(waits):
            of = _cost(label, name, "seconds")
            yield _repeated(of, *waits, limits.speed, floor=limits.seconds_floor)


def _cost(label: str, name: str, unit: Unit) -> Figure:
    """What depends on the machine."""
    return Figure(label, name, "cost", unit)


def _repeated(
    of: Figure,
    before: Repeated | None,
    now: Repeated | None,
    limit: float,
    *,
    more_is_better: bool = False,
    floor: float = 0.0,
) -> Change:
    groups = (len(before.samples), len(now.samples)) if before and now else None
    means = _mean(before), _mean(now)
    return verdict.ratio(of, *means, limit, more_is_better=more_is_better, floor=floor, groups=groups)


def _mean(found: Repeated | None) -> Estimate | None:
    if found is None:
        return None
    return Estimate(found.mean, None if found.deviation is None else found.deviation / math.sqrt(len(found.samples)))
