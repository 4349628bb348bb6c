"""What changed between two reports beyond noise, for better or worse. Knows figures; renders nothing, measures nothing.

The records beside a report pair two measurements of the same rows, chunks and questions, so that what makes a row hard
cancels; without them the standard errors are added in squares, which finds less.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from medmind.errors import MedmindError
from medmind_benchmarks import compare_costs, compare_quality, pairing, verdict
from medmind_benchmarks.compare_quality import On
from medmind_benchmarks.figures import Figures
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.results import Level, RawText, Report
from medmind_benchmarks.verdict import Change, Figure, Groups, Limits

SCHEMA = "medmind-benchmark-comparison/4"


@dataclass(frozen=True)
class Comparison:
    """All changes, and what keeps figures from being compared.

    Attributes:
        notes: conditions that differ, in words.
        unpaired: files of records without which figures were compared unpaired, so that only larger changes show.
    """

    schema: str
    before: str
    now: str
    limits: Limits
    notes: tuple[str, ...]
    unpaired: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def regressions(self) -> list[Change]:
        """What became worse beyond noise and limit, or is not there any more."""
        return [one for one in self.changes if one.verdict in ("worse", "missing")]

    @property
    def undecided(self) -> list[Change]:
        """Answers that were measured on something else in one report than in the other."""
        return [one for one in self.changes if one.verdict == "not comparable" and one.kind == "answers"]

    @property
    def unseen(self) -> list[Change]:
        """Of each figure that is the same within noise, the level whose noise hides most beyond the limit."""
        hidden = [one for one in self.changes if one.verdict == "same" and (one.least or 0) > (one.limit or math.inf)]
        hidden.sort(key=lambda one: -(one.least or 0))
        return list({one.figure: one for one in reversed(hidden)}.values())[::-1]

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
        MedmindError: a size, perplexity or speed of zero; two levels of one name.
    """
    for report in (before, now):
        twice = [label for label, count in Counter(level.label for level in report.levels).items() if count > 1]
        if twice:
            raise MedmindError(f"a report has two levels of the name {twice[0]}", "compare what quants wrote")
    same = _Same.of(before, now)
    labels = [level.label for level in before.levels]
    changes = []
    for level in before.levels:
        other = next((one for one in now.levels if one.label == level.label), None)
        if other is None:
            changes.append(verdict.lone(_there(level.label, "level"), 1.0, None))
            continue
        changes += _level(level, other, limits, beside, same)
    changes += [
        verdict.lone(_there(level.label, "level"), None, 1.0) for level in now.levels if level.label not in labels
    ]
    notes, unpaired = tuple(_notes(before, now, same)), tuple(_unpaired(before, now, beside))
    return Comparison(SCHEMA, names[0], names[1], limits, notes, unpaired, tuple(changes))


@dataclass(frozen=True)
class _Same:
    """What two reports were measured on alike; what only one of them measured does not differ.

    Attributes:
        tasks: names of question sets that hold other questions.
        rows, chunks: how many of them each measured on.
    """

    text: bool
    raw: bool
    memory: bool
    speed: bool
    reference: bool
    raw_reference: bool
    tasks: frozenset[str]
    rows: Groups
    chunks: Groups

    @staticmethod
    def of(before: Report, now: Report) -> "_Same":
        old, new = before.held_out, now.held_out
        asked, asks = _asked(before), _asked(now)
        return _Same(
            text=old is None or new is None or old.token_digest == new.token_digest,
            raw=before.raw_text is None or now.raw_text is None or _scored(before.raw_text) == _scored(now.raw_text),
            memory=compare_costs.memory_depends_on(before) == compare_costs.memory_depends_on(now),
            speed=compare_costs.speed_depends_on(before) == compare_costs.speed_depends_on(now),
            reference=before.reference == now.reference,
            raw_reference=before.reference == now.reference or bool(before.kl_base and now.kl_base),
            tasks=frozenset(task for task in asked.keys() & asks.keys() if asked[task] != asks[task]),
            rows=(old.rows, new.rows) if old and new else None,
            chunks=(before.raw_text.chunks, now.raw_text.chunks) if before.raw_text and now.raw_text else None,
        )


def _level(before: Level, now: Level, limits: Limits, beside: tuple[Beside, Beside], same: _Same) -> Iterator[Change]:
    label = now.label
    gone = {gap.cell for gap in now.gaps if gap.status != "skipped"} - {gap.cell for gap in before.gaps}
    for cell in sorted(gone):
        yield verdict.lone(_there(label, f"cell: {cell}"), 1.0, None)
    yield verdict.exact(Figure(label, "file size", "size", "bytes"), before.size, now.size, limits.size)
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
    on = On(label, "", same.text, same.rows)
    yield from compare_quality.perplexity(on, old.answers, new.answers, pairing.perplexity(*rows, label), limits)
    on = replace(on, alike=same.text and same.reference)
    difference = pairing.divergence(*rows, label)
    yield from compare_quality.fidelity(on, old.answers_fidelity, new.answers_fidelity, difference, limits)
    on = On(label, ", raw text", same.raw, None)  # its perplexity's error is over tokens
    yield from compare_quality.perplexity(on, old.raw, new.raw, pairing.perplexity(*chunks, label), limits)
    on = replace(on, alike=same.raw and same.raw_reference, groups=same.chunks)
    difference = pairing.divergence(*chunks, label)
    yield from compare_quality.fidelity(on, old.raw_fidelity, new.raw_fidelity, difference, limits)
    asked, asks = ({one.task: one for one in figures.choices} for figures in (old, new))
    for task in dict.fromkeys([*asked, *asks]):
        pair = asked.get(task), asks.get(task)
        yield compare_quality.accuracy(label, task, *pair, beside, limits, alike=task not in same.tasks)
    for alike, costs in (
        (same.memory, compare_costs.memory(label, old, new, limits)),
        (same.speed, compare_costs.speed(label, old, new, limits)),
    ):
        for change in costs:
            if alike:
                yield change
            else:
                of = Figure(label, change.figure, change.kind, change.unit)
                yield verdict.incomparable(of, change.before, change.now)


def _there(label: str, name: str) -> Figure:
    """What is there or is not."""
    return Figure(label, name, "presence", "presence")


def _unpaired(before: Report, now: Report, beside: tuple[Beside, Beside]) -> Iterator[str]:
    """Files of records that lie not beside both reports, though both measured what they are of."""
    figures = [[level.figures for level in report.levels] for report in (before, now)]
    for name, measured, records in (
        (pairing.FILES[0], "answers", [one.rows for one in beside]),
        (pairing.FILES[1], "raw", [one.chunks for one in beside]),
        (pairing.FILES[2], "choices", [one.questions for one in beside]),
    ):
        both = all(any(getattr(one, measured) for one in report) for report in figures)
        if both and not all(records):
            yield name


def _asked(report: Report) -> dict[str, str]:
    """Task → digest of its questions."""
    return {one.task: one.digest for level in report.levels for one in level.figures.choices}


def _scored(text: RawText) -> tuple[object, ...]:
    """What of a raw text was scored, whatever its file is called."""
    return text.digest, text.chunk, text.chunks


def _notes(before: Report, now: Report, same: _Same) -> Iterator[str]:
    if not same.text:
        yield "the held-out tokens differ: perplexity and KL of the answers are not compared"
    if not same.raw:
        yield "the raw texts differ: perplexity and KL of raw text are not compared"
    for task in sorted(same.tasks):
        yield f"the questions of {task} differ: right answers to them are not compared"
    lost = [name for name, alike in (("memory", same.memory), ("speed", same.speed)) if not alike]
    if lost:
        costs = " and ".join(lost) + (" are" if len(lost) > 1 else " is")
        yield f"processors, cores, threads, batches, attention or numbers of tokens differ: {costs} not compared"
    libraries = [one.conditions.versions.get("llama-cpp-python", "") for one in (before, now)]
    if libraries[0] != libraries[1]:
        yield f"llama-cpp-python {libraries[0] or 'unknown'} before, {libraries[1] or 'unknown'} now"
    timed = all(any(one.figures.prompt for one in report.levels) for report in (before, now))
    for which, one in (("earlier", before.conditions), ("later", now.conditions)):
        if timed and same.speed and (one.load_before or 0) > one.cores / 2:
            yield (
                f"other programs were at work as the {which} report was measured (load average {one.load_before:.1f} "
                f"on {one.cores} cores): its speeds may be too low"
            )
    if not same.reference:
        yield f"the references differ, {before.reference} and {now.reference}: KL from them is not compared"
    if before.pick.label != now.pick.label:
        yield f"the pick changed: {before.pick.label or 'none'} before, {now.pick.label or 'none'} now"
    if before.random_weights or now.random_weights:
        yield "random weights: quality means nothing"
