"""The benchmark of quantization levels: runs the cells of a plan and joins what they found into a report.

Knows the order of cells and which figures are compared; measures nothing itself and renders nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from medmind import llama
from medmind.artifacts import sha256
from medmind.errors import MedmindError
from medmind_benchmarks import cell, machine, statistics
from medmind_benchmarks.figures import Figures, Memory, Perplexity, Speed
from medmind_benchmarks.pick import pick
from medmind_benchmarks.plan import Plan, Planned
from medmind_benchmarks.process import CELL, CellError, run_cell
from medmind_benchmarks.results import SCHEMA, Conditions, HeldOut, Level, Report

Progress = Callable[[str, float, str], AbstractContextManager[Callable[..., None]]]


@dataclass
class _Found:
    """What the cells of one level have said so far; `speeds` by round."""

    quality: cell.PerplexityResult | None = None
    speeds: dict[int, cell.SpeedResult] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """The report, and per held-out row what each level made of it, for comparisons between reports."""

    report: Report
    rows: list[Mapping[str, Any]]

    @property
    def missing(self) -> list[Level]:
        """Levels of which something was not measured."""
        return [level for level in self.report.levels if level.status != "measured"]


def run(plan: Plan, progress: Progress, *, command: Sequence[str] = CELL) -> Outcome:
    """Measure every level of the plan.

    Args:
        plan: checked beforehand.
        progress: `progress(description, total, unit)` yields `advance(amount=1, status="")`.
        command: what starts a cell.

    Raises:
        MedmindError: not one cell gave a result.
    """
    began = time.monotonic()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    load_before = machine.load_average()
    able = [level for level in plan.levels if not level.refusal]
    digests = _digests(plan, progress)
    found = {level.label: _Found() for level in able}
    with progress("perplexity", len(able) * len(plan.chosen), "rows") as advance:
        for level in able:
            _measure_quality(plan, level, found[level.label], advance, command)
    _demand_same_tokens(found, plan.reference)
    with progress("speed and memory", len(able) * plan.rounds, "cells") as advance:
        for turn in range(plan.rounds):  # A, B, C, A, B, C: what slows the machine for a while slows all levels
            for level in able:
                _measure_speed(plan, level, turn, found[level.label], command)
                advance(1, level.label)
    if not any(one.quality or one.speeds for one in found.values()):
        reason = found[plan.reference].failures[0]
        raise MedmindError(f"nothing could be measured: {plan.reference}, {reason}", "see what medmind-chat says to it")
    levels = tuple(_level(plan, level, found, digests[level.label]) for level in plan.levels)
    report = Report(
        schema=SCHEMA,
        run=plan.sources.run.name if plan.sources.run else None,
        reference=plan.reference,
        random_weights=False,
        raw_text=None,
        held_out=_held_out(plan, found[plan.reference].quality),
        conditions=_conditions(plan, created, time.monotonic() - began, load_before),
        levels=levels,
        pick=pick(levels, plan.reference, plan.tolerance),
    )
    return Outcome(report, _row_table(plan, found))


def _digests(plan: Plan, progress: Progress) -> dict[str, str]:
    digests = {}
    with progress("digests", sum(level.model.size for level in plan.levels), "B") as advance:
        for level in plan.levels:
            digests[level.label] = sha256(level.model.path)
            advance(level.model.size, level.label)
    return digests


def _request(plan: Plan, level: Planned, turn: int | None) -> cell.Request:
    return cell.Request(
        kind="perplexity" if turn is None else "speed",
        model=str(level.model.path),
        heldout=str(plan.sources.heldout),
        rows=plan.chosen,
        context=plan.context,
        threads=plan.threads,
        system_prompt=plan.system_prompt,
        prompt_tokens=plan.prompt_tokens,
        generated_tokens=plan.generated_tokens,
        turn=turn or 0,
    )


def _measure_quality(
    plan: Plan, level: Planned, found: _Found, advance: Callable[..., None], command: Sequence[str]
) -> None:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        advance(1, level.label)

    try:
        found.quality = run_cell(_request(plan, level, None), cell.PerplexityResult, advance=step, command=command)
    except CellError as error:
        found.failures.append(f"perplexity: {error}")
        advance(len(plan.chosen) - done, level.label)


def _measure_speed(plan: Plan, level: Planned, turn: int, found: _Found, command: Sequence[str]) -> None:
    if any(failure.startswith("speed") for failure in found.failures):
        return  # a file that crashed once is not given the chance to do so in every round
    try:
        request = _request(plan, level, turn)
        found.speeds[turn] = run_cell(request, cell.SpeedResult, advance=lambda: None, command=command)
    except CellError as error:
        found.failures.append(f"speed, round {turn + 1}: {error}")


def _demand_same_tokens(found: Mapping[str, _Found], reference: str) -> None:
    """A level scored on other tokens than the reference loses its perplexity: comparing it would mislead."""
    theirs = found[reference].quality
    for one in found.values():
        if one.quality and theirs and one.quality.token_digest != theirs.token_digest:
            one.quality = None
            one.failures.append(f"perplexity: it tokenizes the held-out rows differently from {reference}")


def _level(plan: Plan, level: Planned, found: Mapping[str, _Found], digest: str) -> Level:
    model = level.model
    mine = found.get(level.label, _Found())
    reference = None if level.label == plan.reference else found[plan.reference]
    loads = [result.load_seconds for result in mine.speeds.values()]
    return Level(
        label=level.label,
        file=model.path.name,
        digest=digest,
        size=model.size,
        parameters=model.parameters,
        bits_per_weight=model.bits_per_weight,
        unquantized=model.unquantized,
        status="refused" if level.refusal else "failed" if mine.failures else "measured",
        base=False,
        reason=level.refusal or "; ".join(mine.failures),
        gaps=(),
        figures=Figures(
            kv_type="f16",
            answers=_quality(mine.quality, reference.quality if reference else None),
            raw=None,
            answers_fidelity=None,
            raw_fidelity=None,
            choices=(),
            memory=_memory(list(mine.speeds.values())),
            needs=(),
            prompt=_speed(plan.prompt_tokens, mine, reference, lambda result: result.prompt),
            generation=_speed(plan.generated_tokens, mine, reference, lambda result: result.generation),
            load_seconds=statistics.repeated(loads) if loads else None,
            first_token_seconds=None,
        ),
        kv=(),
    )


def _quality(mine: cell.PerplexityResult | None, reference: cell.PerplexityResult | None) -> Perplexity | None:
    if mine is None or sum(mine.tokens) == 0:
        return None
    scored = [index for index, count in enumerate(mine.tokens) if count]
    nll, tokens = [mine.nll[index] for index in scored], [mine.tokens[index] for index in scored]
    theirs = [reference.nll[index] for index in scored] if reference else None
    return Perplexity(
        perplexity=statistics.perplexity(nll, tokens),
        ratio=statistics.perplexity_ratio(nll, theirs, tokens) if theirs else None,
        difference=statistics.perplexity_difference(nll, theirs, tokens) if theirs else None,
        tokens=sum(tokens),
        seconds=mine.seconds,
    )


def _memory(results: Sequence[cell.SpeedResult]) -> tuple[Memory, ...]:
    """The round with the highest peak, whole: figures of different processes are not mixed."""
    return tuple(sorted((result.memory for result in results), key=lambda memory: memory.peak)[-1:])


def _speed(
    tokens: int, mine: _Found, reference: _Found | None, value: Callable[[cell.SpeedResult], float]
) -> Speed | None:
    if not mine.speeds:
        return None
    shared = sorted(mine.speeds.keys() & reference.speeds.keys()) if reference else []
    ratios = [value(mine.speeds[turn]) / value(reference.speeds[turn]) for turn in shared] if reference else []
    return Speed(
        tokens=tokens,
        tokens_per_second=statistics.repeated([value(result) for result in mine.speeds.values()]),
        relative=statistics.repeated(ratios) if ratios else None,
        bytes_per_token=None,
        bandwidth_share=None,
    )


def _held_out(plan: Plan, quality: cell.PerplexityResult | None) -> HeldOut | None:
    if quality is None:
        return None
    return HeldOut(
        file=plan.sources.heldout.name,
        digest=sha256(plan.sources.heldout),
        rows_in_file=len(plan.rows),
        rows=sum(1 for count in quality.tokens if count),
        answers=quality.answers,
        tokens=sum(quality.tokens),
        cut=quality.cut,
        dropped=quality.dropped,
        token_digest=quality.token_digest,
    )


def _conditions(plan: Plan, created: str, seconds: float, load_before: float | None) -> Conditions:
    import platform

    features: bytes = llama.load().llama_print_system_info()
    return Conditions(
        created=created,
        seconds=seconds,
        cpu=machine.cpu_model(),
        cores=machine.cores(),
        memory=machine.available_memory()[1],
        reserve=2**29,
        load_before=load_before,
        system=platform.platform(),
        versions=machine.versions(),
        features=features.decode("utf-8", "replace").strip(" |"),
        context=plan.context,
        batch=cell.BATCH,
        threads=plan.threads,
        prompt_tokens=plan.prompt_tokens,
        generated_tokens=plan.generated_tokens,
        rounds=plan.rounds,
        repeats=1,
        contexts=(plan.context,),
        load_modes=("auto",),
        kv_types=("f16",),
        bandwidth=None,
        cells=0,
        reused=0,
    )


def _row_table(plan: Plan, found: Mapping[str, _Found]) -> list[Mapping[str, Any]]:
    """One record a held-out row: its id, its answer tokens, and the summed nats of each level."""
    qualities = {label: one.quality for label, one in found.items() if one.quality}
    if not qualities:
        return []
    tokens = next(iter(qualities.values())).tokens
    return [
        {
            "row": index,
            "id": plan.rows[index].get("id"),
            "tokens": tokens[place],
            "nll": {label: quality.nll[place] for label, quality in qualities.items()},
        }
        for place, index in enumerate(plan.chosen)
    ]
