"""Runs the steps of a chain, each in its own process, on the same tokens. Renders nothing; joins nothing into a report.

The trained model comes first: what it says of every token goes into a mapped file, which all others are held against.
What an earlier chain measured of the same things is taken.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmind.artifacts import sha256
from medmind.errors import MedmindError
from medmind_benchmarks import score, texts
from medmind_benchmarks.chain import cell
from medmind_benchmarks.chain.plan import File, Plan
from medmind_benchmarks.chain.stages import Stages
from medmind_benchmarks.examples import Example
from medmind_benchmarks.process import CELL, CellError, Limits, run_cell
from medmind_benchmarks.store import Kept, Store, cells_folder
from medmind_benchmarks.texts import Text
from medmind_benchmarks.training.plan import STEP
from medmind_train.score import tokens
from medmind_train.score.document import ScoreDocument, Stage

Progress = Callable[[str, float, str], AbstractContextManager[Callable[..., None]]]


@dataclass
class Found:
    """What the steps gave.

    Attributes:
        trained: the model as it was trained.
        stages: `base`, `merged` and `merged-nf4`, as far as they could be scored.
        files: label → what a GGUF gave.
        reasons: stage or label → why there is nothing.
        digests: label → digest of the GGUF.
        rows: ids of the rows scored, in order.
        text: the tokens.
        created: when the newest result was there, ISO 8601, UTC.
        reused: how many results an earlier chain had measured.
    """

    trained: ScoreDocument
    text: Text
    rows: tuple[str, ...]
    stages: dict[Stage, ScoreDocument] = field(default_factory=dict)
    files: dict[str, score.Result] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    created: str = ""
    reused: int = 0

    def take(self, kept: Kept[Any], *, known: bool) -> None:
        """Note where a result comes from."""
        self.created = max(self.created, kept.created)
        self.reused += known


def run(plan: Plan, progress: Progress, *, command: Sequence[str] = STEP, cell_command: Sequence[str] = CELL) -> Found:
    """Score every step.

    Args:
        progress: see `medmind.console.progress`.
        command: what `score …` is put behind.
        cell_command: what starts a cell.

    Raises:
        MedmindError: the trained model could not be scored: there is nothing to hold the others against.
    """
    folder = cells_folder(plan.out)
    scores = Stages(plan, command)
    stages: tuple[Stage, ...] = ("base", "merged", "merged-nf4")
    with progress("chain", 1 + len(stages) + len(plan.files), "steps") as advance:
        advance(0, "the model as it was trained")
        try:
            kept, known = scores.trained()
        except CellError as error:
            raise MedmindError(f"the trained model could not be scored: {error}", error.hint) from error
        advance(1)
        trained = kept.result
        found = _begin(trained, scores.file, folder / "text.json")
        found.take(kept, known=known)
        for stage in stages:
            advance(0, stage)
            try:
                kept, known = scores.stage(stage, trained)
                found.stages[stage] = kept.result
                found.take(kept, known=known)
            except CellError as error:
                found.reasons[stage] = str(error)
            advance(1)
        digests = {str(folder / "text.json"): trained.token_digest, str(scores.file): scores.rows_digest}
        store = Store(folder, digests)
        for file in plan.files:
            advance(0, file.label)
            found.digests[file.label] = digests[str(file.model.path)] = sha256(file.model.path)
            _file(plan, file, found, scores, store, cell_command)
            advance(1)
    return found


def _begin(trained: ScoreDocument, file: Path, place: Path) -> Found:
    """The tokens that training scored, as the cells read them."""
    scored = tokens.read(tokens.beside(file))
    groups: list[tuple[Example, ...]] = []
    names = []
    for row, turns in itertools.groupby(scored.examples, key=lambda one: one.row):
        names.append(row)
        groups.append(tuple(Example(one.ids, one.answer, cut=not one.complete) for one in turns))
    longest = max(len(one.ids) for one in scored.examples)
    text = Text(longest, tuple(groups), sum(one.cut for group in groups for one in group), 0)
    if text.digest != trained.token_digest or names != [row.row for row in trained.rows]:
        raise MedmindError(
            f"the tokens in {tokens.beside(file)} are not those that were scored", f"remove {file.parent}"
        )
    texts.write(text, place)
    return Found(trained, text, tuple(names))


def _file(plan: Plan, file: File, found: Found, scores: Stages, store: Store, command: Sequence[str]) -> None:
    if file.refusal:
        found.reasons[file.label] = file.refusal
        return
    request = cell.Request(
        "against-trained", str(file.model.path), str(store.folder / "text.json"), str(scores.file), plan.threads
    )
    known = store.get(request, score.Result)
    if known:
        found.files[file.label] = known.result
        found.take(known, known=True)
        return
    try:
        scores.rows(found.trained)
        limits = Limits(plan.config.timeout)
        result: Any = run_cell(request, score.Result, advance=lambda: None, command=command, limits=limits)
    except CellError as error:
        found.reasons[file.label] = str(error)
        return
    found.files[file.label] = result
    found.take(store.put(request, result, result.seconds), known=False)
