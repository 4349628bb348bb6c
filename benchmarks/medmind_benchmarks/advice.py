"""Which file to take on a machine of a given memory. Knows needs and the pick; renders sentences, measures nothing."""

from dataclasses import dataclass
from itertools import groupby

from medmind.console import human_bytes
from medmind_benchmarks.figures import Need
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.tables import too_few

MACHINES = (4, 6, 8, 12, 16)
"""GiB of memory."""
GIB = 2**30


@dataclass(frozen=True)
class Advice:
    """The file for one size of machine.

    Attributes:
        memory: of the machine, bytes.
        label: the level; None when nothing fits.
        context: the longest measured context at which it fits.
        text: why, in words.
    """

    memory: int
    label: str | None
    context: int | None
    text: str


def needs(level: Level) -> list[Need]:
    """What a level asks of a machine at each measured context, shortest first."""
    return sorted(level.figures.needs, key=lambda need: need.context)


def advise(report: Report) -> list[Advice]:
    """One piece of advice for each of `MACHINES`; none at all when memory was not measured."""
    measured = [level for level in report.levels if not level.base and needs(level)]
    return [_for(report, measured, memory * GIB) for memory in MACHINES] if measured else []


def lines(report: Report) -> list[tuple[str, str]]:
    """The advice as (machines, words): sizes that follow one another and are told the same are told once."""
    found: list[tuple[str, str]] = []
    for text, same in groupby(advise(report), key=lambda one: one.text):
        sizes = [one.memory // GIB for one in same]
        found.append((f"{sizes[0]} GiB" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} GiB", text))
    return found


def _for(report: Report, measured: list[Level], memory: int) -> Advice:
    fits = {level.label: _longest(level, memory - report.conditions.reserve) for level in measured}
    able = [level for level in measured if fits[level.label]]
    if not able:
        least = min(measured, key=lambda level: needs(level)[0].bytes)
        need = needs(least)[0].bytes
        return Advice(
            memory,
            None,
            None,
            f"none of these files: the smallest need is {least.label}'s, {human_bytes(need)} at a context of "
            f"{needs(least)[0].context:,} tokens, beside {human_bytes(report.conditions.reserve)} for the system.",
        )
    chosen, why = _choose(report, able)
    longest = fits[chosen.label]
    assert longest
    shortened = longest.context < needs(chosen)[-1].context
    room = (
        f"It needs {human_bytes(longest.bytes)} at {longest.context:,} tokens of context"
        f"{', the longest measured that fits' if shortened else ''}."
    )
    return Advice(memory, chosen.label, longest.context, f"{chosen.label}: {why} {room}")


def _longest(level: Level, room: int) -> Need | None:
    return next((need for need in reversed(needs(level)) if need.bytes <= room), None)


def _choose(report: Report, able: list[Level]) -> tuple[Level, str]:
    if report.random_weights:
        chosen = max(able, key=lambda level: level.bits_per_weight)
        return chosen, "the most precise that fits. The weights are random, so that its quality is not known."
    picked = next((level for level in able if level.label == report.pick.label), None)
    if picked:
        more = [level for level in able if level.size > picked.size and _ratio(level) is not None]
        finest = max(more, key=lambda level: level.size, default=None)
        also = f" {finest.label} would fit as well." if finest else ""
        return picked, f"the smallest within {report.pick.tolerance * 100:g} % of {report.reference}.{also}"
    judged = [level for level in able if _ratio(level) is not None or level.label == report.reference]
    if not judged or too_few(report):
        why = "the held-out rows are too few to choose by" if judged else "quality not measured"
        return max(able, key=lambda level: level.bits_per_weight), f"the most precise that fits; {why}."
    best = min(judged, key=lambda level: _ratio(level) or 1.0)
    ratio = _ratio(best)
    if ratio is None:
        unknown = [level.label for level in report.levels if level.size < best.size and _ratio(level) is None]
        if unknown:
            return best, f"the reference itself; of {', '.join(unknown)} the perplexity is not known."
        return best, "the reference itself, which nothing smaller equals within the tolerance."
    beyond = f"beyond the tolerance of {report.pick.tolerance * 100:g} %, " if best.size < _size(report) else ""
    return best, f"the best that fits; {beyond}{(ratio - 1) * 100:+.2g} % perplexity against {report.reference}."


def _size(report: Report) -> int:
    """Of the picked file; of any, where there is none."""
    return report.level(report.pick.label).size if report.pick.label else 1 << 62


def _ratio(level: Level) -> float | None:
    return level.quality.ratio.value if level.quality and level.quality.ratio else None
