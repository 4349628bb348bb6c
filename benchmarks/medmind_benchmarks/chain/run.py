"""Runs the steps of a chain, each in its own process, on the same tokens. Renders nothing; joins nothing into a report.

The trained model comes first: what it says of every token goes into a mapped file, which all others are held against.
An interrupted chain goes on where it stopped.
"""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmind.artifacts import read_json, sha256, write_json
from medmind.errors import MedmindError
from medmind_benchmarks import machine, score, texts
from medmind_benchmarks.chain import cell
from medmind_benchmarks.chain.plan import File, Plan
from medmind_benchmarks.examples import Example
from medmind_benchmarks.process import CELL, CellError, Limits, run_cell
from medmind_benchmarks.store import Store, cells_folder
from medmind_benchmarks.texts import Text
from medmind_benchmarks.training.plan import STEP
from medmind_benchmarks.training.process import run_document
from medmind_benchmarks.typed_json import decode
from medmind_train.score import tokens
from medmind_train.score.document import SCHEMA, ScoreDocument, Stage

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
    """

    trained: ScoreDocument
    text: Text
    rows: tuple[str, ...]
    stages: dict[Stage, ScoreDocument] = field(default_factory=dict)
    files: dict[str, score.Result] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


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
    steps = _Steps(plan, folder, command)
    stages: tuple[Stage, ...] = ("base", "merged", "merged-nf4")
    with progress("chain", 1 + len(stages) + len(plan.files), "steps") as advance:
        advance(0, "the model as it was trained")
        try:
            trained = steps.trained()
        except CellError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise MedmindError(f"the trained model could not be scored: {error}", error.hint) from error
        advance(1)
        found = _begin(trained, steps.file, folder / "text.json")
        for stage in stages:
            advance(0, stage)
            try:
                found.stages[stage] = steps.stage(stage, trained)
            except CellError as error:
                found.reasons[stage] = str(error)
            advance(1)
        known = {str(folder / "text.json"): trained.token_digest, str(steps.file): trained.adapter}
        for file in plan.files:
            advance(0, file.label)
            found.digests[file.label] = known[str(file.model.path)] = sha256(file.model.path)
            _file(plan, file, found, Store(folder, known), (folder / "text.json", steps.file), cell_command)
            advance(1)
    return found


def forget(plan: Plan) -> None:
    """Remove what an interrupted chain would go on with, once the report is in place."""
    shutil.rmtree(cells_folder(plan.out), ignore_errors=True)


class _Steps:
    """`medmind-train score` in its own processes; a stage that was scored before under the same settings is taken."""

    def __init__(self, plan: Plan, folder: Path, command: Sequence[str]) -> None:
        self.file = folder / "trained.npy"
        self._plan = plan
        self._folder = folder
        self._command = command
        config = plan.config
        settings = {
            "adapter": plan.manifest["adapter"]["digest"],
            "heldout": sha256(plan.heldout),
            "limits": [config.rows, config.tokens],
            "compute": [config.device, config.dtype],
            "versions": machine.versions(),
        }
        place = folder / "chain.json"
        if folder.exists() and (not place.is_file() or read_json(place) != settings):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(place, settings)

    def trained(self) -> ScoreDocument:
        """Write the file that the others are held against."""
        config = self._plan.config
        needed = (self._folder / "adapter.json", self.file, tokens.beside(self.file))
        if not all(path.is_file() for path in needed):
            for path in (*needed, *self._folder.glob(".*.partial")):  # a killed process leaves those
                path.unlink(missing_ok=True)
        limits = ("--rows", str(config.rows), "--tokens", str(config.tokens))
        return self._run("adapter", "--heldout", str(self._plan.heldout), *limits, "--write", str(self.file))

    def stage(self, stage: Stage, trained: ScoreDocument) -> ScoreDocument:
        """Score another stage on the tokens of the trained model."""
        document = self._run(stage, "--against", str(self.file))
        try:
            _demand_same(document, trained)
        except CellError:
            (self._folder / f"{stage}.json").unlink()
            raise
        return document

    def _run(self, stage: Stage, *flags: str) -> ScoreDocument:
        place = self._folder / f"{stage}.json"
        if place.is_file():
            return decode(ScoreDocument, read_json(place))
        config = self._plan.config
        base = ("--base", str(self._plan.base)) if self._plan.base else ()
        where = ("--device", config.device, "--dtype", config.dtype, *base)
        document = run_document(
            [*self._command, "score", self._plan.name, "--stage", stage, *flags, *where, "--json"],
            ScoreDocument,
            SCHEMA,
            timeout=config.timeout,
        )
        write_json(place, dataclasses.asdict(document))
        return document


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


def _demand_same(document: ScoreDocument, trained: ScoreDocument) -> None:
    if (document.token_digest, document.adapter) != (trained.token_digest, trained.adapter):
        raise CellError("it scored other tokens, or another adapter, than the trained model")
    if any(row.kl is None for row in document.rows) or document.divergence is None:
        raise CellError("it said nothing of the divergence from the trained model")


def _file(
    plan: Plan, file: File, found: Found, store: Store, places: tuple[Path, Path], command: Sequence[str]
) -> None:
    text, rows = places
    if file.refusal:
        found.reasons[file.label] = file.refusal
        return
    request = cell.Request("against-trained", str(file.model.path), str(text), str(rows), plan.threads)
    known = store.get(request, score.Result)
    if known:
        found.files[file.label] = known.result
        return
    try:
        limits = Limits(plan.config.timeout)
        result: Any = run_cell(request, score.Result, advance=lambda: None, command=command, limits=limits)
    except CellError as error:
        found.reasons[file.label] = str(error)
        return
    found.files[file.label] = result
    store.put(request, result, result.seconds)
