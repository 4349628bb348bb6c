"""Runs the cells of a benchmark, each in its own process: takes what is known already, and says what could not be had.

Knows the order, the store and the limits; nothing of what a cell measures.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from medmind_benchmarks.matrix import Cell, Key
from medmind_benchmarks.process import CellError, Limits, run_cell
from medmind_benchmarks.results import Gap
from medmind_benchmarks.store import Kept, Store


class Progress(Protocol):
    """As `medmind.console.progress`."""

    def __call__(self, description: str, total: float, unit: str) -> AbstractContextManager[Callable[..., None]]:
        """See `medmind.console.progress`."""
        ...


@dataclass
class Outcome:
    """What the cells gave.

    Attributes:
        results: level and key → result.
        gaps: level → cells without one.
        seconds: that the cells took, in this call and in earlier ones whose results were taken.
        created: when the newest of the results was there, ISO 8601, UTC; empty without any.
        load_before: the highest load average before the first cell of the calls that measured them.
        reused: how many results were taken.
    """

    results: dict[tuple[str, Key], Any] = field(default_factory=dict)
    gaps: dict[str, list[Gap]] = field(default_factory=dict)
    seconds: float = 0.0
    created: str = ""
    load_before: float | None = None
    reused: int = 0

    def get(self, level: str, *key: str | int) -> Any:
        """The result of a cell, or None."""
        return self.results.get((level, key))

    def take(self, cell: Cell, kept: Kept[Any]) -> None:
        """Note a result."""
        self.results[cell.level, cell.key] = kept.result
        self.seconds += kept.seconds
        self.created = max(self.created, kept.created)
        if kept.load_before is not None:
            self.load_before = max(self.load_before or 0.0, kept.load_before)

    def reason(self) -> str:
        """The first reason for a missing result; empty when none is missing."""
        return next((gap.reason for gaps in self.gaps.values() for gap in gaps), "")

    def lack(self, cell: Cell, gap: Gap) -> None:
        """Note a cell without a result."""
        self.gaps.setdefault(cell.level, []).append(gap)


def run(cells: Sequence[Cell], store: Store, limits: Limits, progress: Progress, command: Sequence[str]) -> Outcome:
    """Run what is missing.

    Args:
        cells: in order.
        store: of earlier results; new ones go in as soon as they are there: a call that is killed loses one cell.
        limits: of each cell.
        progress: its total is the number of cells to run; a cell's share of it is its share of the expected time, so
            that the time remaining holds for the whole.
        command: what starts a cell.
    """
    outcome = Outcome()
    missing: list[Cell] = []
    for cell in cells:
        known = None if cell.refusal else store.get(cell.request, cell.result)
        if cell.refusal:
            skipped = Gap(cell.name, "skipped", cell.refusal)
            outcome.lack(cell, skipped if cell.skipped else Gap(cell.name, "refused", cell.refusal, "memory"))
        elif known is not None:
            outcome.take(cell, known)
            outcome.reused += 1
        else:
            missing.append(cell)
    queue = _with_files(missing)
    whole = sum(cell.work for cell in queue) or 1
    failed: dict[tuple[str, str], CellError] = {}
    with progress("benchmark", len(queue), "cells") as advance:
        for number, cell in enumerate(queue, 1):
            step = cell.work / whole * len(queue) / max(1, cell.steps)
            status = f"{cell.level} {cell.name} ({number} of {len(queue)})".strip()
            counted = 0

            def tick(step: float = step, status: str = status, most: int = cell.steps) -> None:
                nonlocal counted
                if counted < most:
                    counted += 1
                    advance(step, status)

            advance(0, status)
            _run(cell, store, limits, outcome, failed, tick, command)
            advance(step * (max(1, cell.steps) - counted), status)
    return outcome


def _with_files(missing: Sequence[Cell]) -> list[Cell]:
    """The missing cells, each file that some of them read written before the first of them."""
    queue: list[Cell] = []
    written = set()
    for cell in missing:
        if cell.before and cell.before.key not in written:
            written.add(cell.before.key)
            queue.append(cell.before)
        queue.append(cell)
    return queue


def _run(
    cell: Cell,
    store: Store,
    limits: Limits,
    outcome: Outcome,
    failed: dict[tuple[str, str], CellError],
    tick: Callable[[], None],
    command: Sequence[str],
) -> None:
    family = (cell.level, str(cell.key[0]) + (str(cell.key[1]) if cell.key[0] == "speed" else ""))
    lost = failed.get(("", str(cell.before.key))) if cell.before else None
    if not lost and cell.key[0] == "speed" and family in failed:  # what crashed is not given the chance in every round
        return
    if not lost and cell.refusal:  # of a file that others read: they say so
        failed["", str(cell.key)] = CellError(cell.refusal, cause="memory")
        return
    began = time.monotonic()
    try:
        if lost:
            raise CellError(f"the reference's log-probabilities could not be written: {lost}", cause=lost.cause)
        result = run_cell(cell.request, cell.result, advance=tick, command=command, limits=limits)
    except CellError as error:
        failed[family] = failed["", str(cell.key)] = error
        outcome.lack(cell, Gap(cell.name, "failed", str(error), error.cause))
        return
    seconds = time.monotonic() - began
    if cell.key[0] == "log-probs":  # its result is a file that goes at the end
        outcome.seconds += seconds
        outcome.results[cell.level, cell.key] = result
    else:
        outcome.take(cell, store.put(cell.request, result, seconds))
