"""Runs a grounding benchmark: what the libraries find, then each model alone and with each library in own processes.

Knows order and files; renders nothing. Results of cells are kept: an interrupted run goes on where it stopped, and
another library is held against what a model made of the questions alone.
"""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import llama, processor
from medmind.artifacts import sha256
from medmind.errors import MedmindError
from medmind_benchmarks import effort, examples, machine, runner
from medmind_benchmarks.config import QuantsConfig
from medmind_benchmarks.grounding import cell, joining, retrieval
from medmind_benchmarks.grounding import items as item_files
from medmind_benchmarks.grounding.items import Item
from medmind_benchmarks.grounding.results import SCHEMA, Conditions, Library, Model, Pair, Report
from medmind_benchmarks.grounding.retrieval import Hit
from medmind_benchmarks.matrix import Cell
from medmind_benchmarks.model_file import ModelFile, read
from medmind_benchmarks.process import CELL, Limits
from medmind_benchmarks.runner import Progress
from medmind_benchmarks.sources import Sources
from medmind_benchmarks.store import Store, cells_folder
from medmind_runtime.config import KvType
from medmind_runtime.engine.speculation import cache_type
from medmind_runtime.engine.threads import physical_cores
from medmind_runtime.library import index

_ALONE = ""
"""In place of a library: the question alone."""
_COST = {True: 3.0, False: 2.0}
"""Seconds an item may take with passages and without, roughly; only the proportions matter."""


@dataclass(frozen=True)
class GroundingConfig:
    """What to measure.

    Attributes:
        rows: held-out rows at most, 0: all; None takes as many as `quants` does.
        context: tokens; None takes what medmind-chat takes.
        threads: None takes the physical cores.
        cell_seconds: that one model may take with one library.
    """

    rows: int | None = None
    context: int | None = None
    threads: int | None = None
    cell_seconds: float = QuantsConfig.cell_seconds


@dataclass(frozen=True)
class Plan:
    """A benchmark that can start.

    Attributes:
        models: by label, from the most precise file to the least.
        libraries: by label, and what each has for the items.
        left_out: reason → chosen rows that make no item.
        reduction: said when fewer rows are taken because a model is large; else empty.
    """

    models: Mapping[str, ModelFile]
    libraries: Mapping[str, Path]
    hits: Mapping[str, list[Hit]]
    topics: Mapping[str, int]
    items: list[Item]
    left_out: dict[str, int]
    rows_in_file: int
    heldout: Path
    out: Path
    config: GroundingConfig
    threads: int
    reduction: str


@dataclass(frozen=True)
class Outcome:
    """The report, and one record for each model, library and row."""

    report: Report
    rows: list[Mapping[str, Any]]


def make(sources: Sources, libraries: Sequence[Path], out: Path, config: GroundingConfig) -> Plan:
    """Check what can be checked before a model is loaded, and ask the libraries.

    Raises:
        MedmindError: a file that is no library, rows that cannot be asked, or a library that has nothing on any row.
    """
    assert sources.heldout
    models = sorted((read(file) for file in sources.files), key=lambda model: model.precision, reverse=True)
    rows = examples.read_rows(sources.heldout)
    asked = QuantsConfig(measure=("answers",)) if config.rows is None else _asked(config.rows)
    reduced, reduction = effort.fit(asked, max(model.parameters for model in models))
    found, left_out = item_files.build(rows, reduced.rows)
    files = dict(zip(_labels([path.stem for path in libraries], libraries), libraries, strict=True))
    hits, topics = {}, {}
    for label, path in files.items():
        with index.Library(path) as library:
            hits[label] = retrieval.look_up(library, found)
            topics[label] = len(library.topics())
        if not any(hit.found for hit in hits[label]):
            raise MedmindError(
                f"{path} has nothing on any of the {len(found)} questions: chat would say so and ask no model",
                "give a library on the subjects of the held-out rows",
            )
    return Plan(
        models=dict(zip(_labels([one.quant for one in models], [one.path for one in models]), models, strict=True)),
        libraries=files,
        hits=hits,
        topics=topics,
        items=found,
        left_out=left_out,
        rows_in_file=len(rows),
        heldout=sources.heldout,
        out=out,
        config=config,
        threads=config.threads or physical_cores(),
        reduction=reduction,
    )


def run(plan: Plan, progress: Progress, *, command: Sequence[str] = CELL) -> Outcome:
    """Measure; what an earlier call measured of the same things is taken.

    Args:
        plan: checked beforehand.
        progress: see `medmind.console.progress`.
        command: what starts a cell.

    Raises:
        MedmindError: no model gave a result.
    """
    folder = cells_folder(plan.out)
    file = folder / "items.jsonl"
    known = {str(model.path): sha256(model.path) for model in plan.models.values()}
    known |= {str(path): sha256(path) for path in plan.libraries.values()}
    folder.mkdir(parents=True, exist_ok=True)
    item_files.write(file, plan.items)
    digests = known | {str(file): sha256(file)}
    store, limits = Store(folder, digests), Limits(plan.config.cell_seconds)
    outcome = runner.run(_cells(plan, file), store, limits, progress, command)
    pairs, records, context, reserve = [], [], {}, {}
    for model in plan.models:
        alone = outcome.get(model, "grounding", _ALONE)
        if alone:
            context[model], reserve[model] = alone.context, alone.reserve
        for library in plan.libraries:
            grounded = outcome.get(model, "grounding", library)
            if not alone or not grounded:
                gaps = {gap.cell: gap.reason for gap in outcome.gaps[model]}
                pairs.append(_failed(model, library, gaps.get(_name(library)) or gaps[_name(_ALONE)]))
                continue
            rows = joining.rows(plan.items, plan.hits[library], alone, grounded)
            pairs.append(joining.pair(model, library, rows, alone, grounded))
            records += [joining.record(row, model, library) for row in rows]
    if not any(pair.status == "measured" for pair in pairs):
        raise MedmindError(f"nothing could be measured: {pairs[0].model}: {pairs[0].reason}")
    report = Report(
        schema=SCHEMA,
        models=tuple(
            Model(label, model.path.name, known[str(model.path)], model.size) for label, model in plan.models.items()
        ),
        libraries=tuple(_library(plan, label, known[str(path)]) for label, path in plan.libraries.items()),
        pairs=tuple(pairs),
        conditions=Conditions(
            created=outcome.created,
            seconds=outcome.seconds,
            cpu=processor.name(),
            cores=machine.cores(),
            load_before=outcome.load_before,
            system=platform.platform(),
            threads=plan.threads,
            versions=machine.versions(),
            heldout=plan.heldout.name,
            heldout_digest=sha256(plan.heldout),
            rows_in_file=plan.rows_in_file,
            rows=len(plan.items),
            left_out=plan.left_out,
            context=context,
            reserve=reserve,
            kv_type={label: kv_type for label, kv_type in _kv_types(plan).items() if label in context},
        ),
    )
    return Outcome(report, records)


def _asked(rows: int) -> QuantsConfig:
    return QuantsConfig(measure=("answers",), rows=rows, asked=frozenset({"rows"}))


def _cells(plan: Plan, items: Path) -> list[Cell]:
    found = []
    kv_types = _kv_types(plan)
    for label, model in plan.models.items():
        for library, path in {_ALONE: None, **plan.libraries}.items():
            request = cell.Request(
                "grounding",
                str(model.path),
                str(path or ""),
                str(items),
                plan.config.context,
                plan.threads,
                kv_types[label],
            )
            work = len(plan.items) * _COST[path is not None]
            key = ("grounding", library)
            found.append(Cell(label, key, _name(library), request, cell.Result, len(plan.items), work))
    return found


def _kv_types(plan: Plan) -> dict[str, KvType]:
    """The KV cache's type that medmind-chat takes for each model when none is asked for."""
    built = llama.own_attention()
    return {label: cache_type(model.metadata, built=built) for label, model in plan.models.items()}


def _name(library: str) -> str:
    return f"with {library}" if library else "question alone"


def _failed(model: str, library: str, reason: str) -> Pair:
    return Pair(model, library, "failed", reason, None, None, {}, None, None, None, (), None)


def _library(plan: Plan, label: str, digest: str) -> Library:
    hits = plan.hits[label]
    return Library(
        label=label,
        file=plan.libraries[label].name,
        digest=digest,
        topics=plan.topics[label],
        asked=len(hits),
        found=sum(hit.found > 0 for hit in hits),
        with_topic=sum(item.topic is not None for item in plan.items),
        held=sum(hit.held for hit in hits),
        recall=retrieval.recall(hits),
    )


def _labels(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """The names, and in place of one that several share, their paths."""
    shared = Counter(names)
    return [name if shared[name] == 1 else str(path) for name, path in zip(names, paths, strict=True)]
