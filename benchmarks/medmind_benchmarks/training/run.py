"""Runs the cells of a plan in turn and joins what they found into a report. Measures nothing, renders nothing."""

import platform
import statistics as numbers
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from medmind import processor
from medmind.errors import MedmindError
from medmind_benchmarks import machine
from medmind_benchmarks.process import CellError
from medmind_benchmarks.statistics import Spread, spread
from medmind_benchmarks.training.cells import Cells
from medmind_benchmarks.training.plan import STEP, Cell, Plan
from medmind_benchmarks.training.process import run_step
from medmind_benchmarks.training.results import FLOOR, SCHEMA, Conditions, Report, Row, Speed, against_full
from medmind_train.step.document import Status, StepDocument, Timing

Progress = Callable[[str, float, str], AbstractContextManager[Callable[..., None]]]
_FOR_GOOD: tuple[Status, ...] = ("not installed", "unsupported")
"""What is said of a mode once holds at every shape."""


@dataclass
class _Found:
    """What the repeats of one cell have said; `failure` of the first that was not measured ends them."""

    documents: dict[int, StepDocument] = field(default_factory=dict)
    failure: tuple[Status, str] | None = None


def run(plan: Plan, progress: Progress, cells: Cells, *, command: Sequence[str] = STEP) -> Report:
    """Measure every cell of the plan that has not been measured yet.

    Args:
        progress: `progress(description, total, unit)` yields `advance(amount=1, status="")`.
        cells: takes each cell as it comes, and has those of an earlier start.
        command: what `step …` is put behind.

    Raises:
        MedmindError: not one cell gave a result.
    """
    runner = _Runner(plan, cells, command)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    load_before = machine.load_average()
    found = {cell: _Found() for cell in plan.cells}
    gone: dict[str, tuple[Status, str]] = {}
    rates: list[StepDocument] = []
    with progress("training steps", len(found) * plan.config.repeats + 2, "cells") as advance:
        _rate(runner, "before", rates)
        advance(1, "matmul")
        for group in plan.groups:
            for turn in range(plan.config.repeats):  # A, B, A, B: what slows the machine for a while slows all modes
                for cell in group:
                    _measure(runner, cell, turn, found[cell], gone)
                    advance(1, f"{cell.shape} {cell.mode}")
        _rate(runner, "after", rates)
        advance(1, "matmul")
    if not any(one.documents for one in found.values()):
        first = next(iter(found))
        reason = found[first].failure
        raise MedmindError(
            f"nothing could be measured: {first.shape} {first.mode} {reason[0] if reason else ''}: "
            f"{reason[1] if reason else ''}",
            "choose other --modes or --shapes",
        )
    _demand_one_machine(document for one in found.values() for document in one.documents.values())
    matmul = spread([one.matmul.flops_per_s for one in rates if one.matmul]) if rates else None
    rate = matmul.median if matmul else None
    rows = tuple(_row(cell, found, group, rate, plan.config.price) for group in plan.groups for cell in group)
    known = next(document for one in found.values() for document in one.documents.values())  # one card, one base
    conditions = _conditions(plan, known, rates, matmul, created, runner.seconds, load_before)
    return Report(SCHEMA, conditions, against_full(rows))


class _Runner:
    """Runs a cell's process, unless it ran before."""

    def __init__(self, plan: Plan, cells: Cells, command: Sequence[str]) -> None:
        self.plan = plan
        self.seconds = 0.0
        self._cells = cells
        self._command = command

    def run(self, name: str, flags: Sequence[str]) -> StepDocument:
        """The document of `medmind-train` with these flags.

        Raises:
            CellError: it gave none.
        """
        known = self._cells.find(name, flags)
        if known:
            self.seconds += known.seconds
            return known.document
        began = time.monotonic()
        try:
            document = run_step([*self._command, *flags], timeout=self.plan.config.timeout)
        finally:
            seconds = time.monotonic() - began
            self.seconds += seconds
        self._cells.keep(name, flags, document, round(seconds, 3))
        return document


def _rate(runner: _Runner, when: str, rates: list[StepDocument]) -> None:
    try:
        rates.append(runner.run(f"matmul-{when}", runner.plan.matmul()))
    except CellError:
        return  # the share of the floor is then not told; what ails the machine, the cells say


def _measure(runner: _Runner, cell: Cell, turn: int, found: _Found, gone: dict[str, tuple[Status, str]]) -> None:
    found.failure = found.failure or gone.get(cell.mode)
    if found.failure:
        return
    shape = f"{cell.shape.batch}x{cell.shape.length}"
    try:
        document = runner.run(f"{shape}-{cell.mode}-{cell.fill}-{turn + 1}", runner.plan.command(cell, seed=turn + 1))
    except CellError as error:
        found.failure = "failed", str(error)
        return
    if document.status == "measured":
        found.documents[turn] = document
        return
    found.failure = document.status, document.reason
    if document.status in _FOR_GOOD:
        gone[cell.mode] = found.failure
    else:
        found.documents[turn] = document  # how far it came


def _demand_one_machine(documents: Iterable[StepDocument]) -> None:
    found = list(documents)
    cards = {document.conditions.card for document in found}
    if len(cards) > 1:
        raise MedmindError(f"the cells ran on different cards: {', '.join(sorted(cards))}", "let CUDA see only one")
    versions = {
        ", ".join(f"{name} {of[name]}" for name in ("medmind", "torch", "driver") if name in of)
        for of in (document.conditions.versions for document in found)
    }
    if len(versions) > 1:
        raise MedmindError(
            f"the cells were measured with different versions: {'; '.join(sorted(versions))}",
            "begin anew with --force and without --resume",
        )


def _row(
    cell: Cell, found: Mapping[Cell, _Found], group: Sequence[Cell], matmul: float | None, price: float | None
) -> Row:
    mine = found[cell]
    timings = _timings(mine)
    documents = list(mine.documents.values())
    first = documents[0] if documents else None
    status, reason = mine.failure or ("measured", "")
    peers: dict[str, Spread] = {
        peer.mode: _ratio(timings, _timings(found[peer]))
        for peer in group
        if peer != cell and timings.keys() & _timings(found[peer]).keys()
    }
    speed = _speed(list(timings.values()), peers)
    timing = next(iter(timings.values()), None)
    loads = [one.load_seconds for one in documents if one.load_seconds is not None]
    per_million = 1e6 / speed.tokens_per_s.median if speed else None
    share = speed.tokens_per_s.median * FLOOR * first.work.linear / matmul if speed and first and matmul else None
    return Row(
        mode=cell.mode,
        shape=cell.shape,
        fill=cell.fill,
        status=status,
        reason=reason,
        card=first.conditions.card if first else "",
        memory=max((one.memory for one in documents), key=lambda memory: memory.peak, default=None),
        speed=speed,
        floor_share=share,
        seconds_per_million=per_million,
        cost_per_million=None if per_million is None or price is None else per_million * price / 3600,
        against_full=None,
        padding=1 - timing.real / timing.tokens if timing else None,
        trained=first.trained if first else None,
        trained_bytes=first.trained_bytes if first else None,
        loss_first=timing.loss_first if timing else None,
        loss_last=timing.loss_last if timing else None,
        load_seconds=numbers.median(loads) if loads else None,
        versions=first.conditions.versions if first else {},
        flags=first.conditions.flags if first else {},
    )


def _timings(found: _Found) -> dict[int, Timing]:
    return {turn: document.timing for turn, document in found.documents.items() if document.timing}


def _ratio(mine: Mapping[int, Timing], theirs: Mapping[int, Timing]) -> Spread:
    shared = sorted(mine.keys() & theirs.keys())
    return spread([mine[turn].supervised_per_s / theirs[turn].supervised_per_s for turn in shared])


def _speed(timings: Sequence[Timing], peers: dict[str, Spread]) -> Speed | None:
    if not timings:
        return None
    return Speed(
        tokens_per_s=spread([timing.tokens_per_s for timing in timings]),
        supervised_per_s=spread([timing.supervised_per_s for timing in timings]),
        step_seconds=spread([timing.median for timing in timings]),
        relative=peers,
    )


def _conditions(
    plan: Plan,
    known: StepDocument,
    rates: Sequence[StepDocument],
    matmul: Spread | None,
    created: str,
    seconds: float,
    load_before: float | None,
) -> Conditions:
    config, work = plan.config, known.work
    return Conditions(
        created=created,
        seconds=seconds,
        card=known.conditions.card,
        device=known.conditions.device,
        card_memory=known.memory.device_total,
        cpu=processor.name(),
        cores=machine.cores(),
        memory=machine.available_memory()[1],
        load_before=load_before,
        system=platform.platform(),
        versions=known.conditions.versions,
        base=Path(work.base).name if Path(work.base).is_absolute() else work.base,
        synthetic=work.synthetic,
        parameters=work.parameters,
        linear=work.linear,
        matmul=matmul,
        matmul_dtype=next((one.matmul.dtype for one in rates if one.matmul), ""),
        dtype=work.dtype,
        rank=work.rank,
        targets=work.targets,
        cap=work.cap,
        vram=work.vram,
        steps=config.steps,
        warmup=config.warmup,
        repeats=config.repeats,
        data=config.data,
        price=config.price,
    )
