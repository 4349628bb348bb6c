"""The benchmark of quantization levels: runs the cells of a plan and joins what they found into a report.

Knows which files the cells read and what goes into the report; measures nothing itself and renders nothing.
"""

import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmind import processor
from medmind.artifacts import require_space, sha256
from medmind.errors import MedmindError
from medmind_benchmarks import base_origin, joining, machine, matrix, reference_rows, runner, texts
from medmind_benchmarks.answers import accuracy, questions
from medmind_benchmarks.matrix import Cell, Files
from medmind_benchmarks.opening import BATCH, FLASH
from medmind_benchmarks.outcome import Outcome
from medmind_benchmarks.pick import pick
from medmind_benchmarks.plan import Plan, Planned
from medmind_benchmarks.process import CELL, Limits
from medmind_benchmarks.results import SCHEMA, Conditions, Gap, Level, Report, Status
from medmind_benchmarks.runner import Progress
from medmind_benchmarks.store import Store, cells_folder
from medmind_runtime.config import KvType

_MEMORY_SHARE = 0.95
"""Of the memory that is free, what one cell may have where no limit is given."""


def run(
    plan: Plan,
    progress: Progress,
    *,
    command: Sequence[str] = CELL,
    fresh: bool = False,
    save_kl_base: Path | None = None,
) -> Outcome:
    """Measure every level of the plan; what an earlier call measured of the same things is taken.

    Args:
        plan: checked beforehand.
        progress: see `medmind.console.progress`.
        command: what starts a cell.
        fresh: measure all anew.
        save_kl_base: write the reference's log-probabilities of raw text there, as llama.cpp's --kl-divergence-base.

    Raises:
        MedmindError: nothing was asked for that these models have, or no room on the disk.
    """
    folder = cells_folder(plan.sources.out)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    digests = _digests(plan, progress)
    files = Files(*(folder / name for name in ("answers.json", "raw.json", "answers.rows", "raw.rows", "questions")))
    cells = matrix.cells(plan, files)
    _demand_room(plan, cells, files, save_kl_base)
    _write_texts(plan, files)
    store = Store(folder, _known(plan, files, digests))
    asked = plan.config.cell_memory
    limits = Limits(plan.config.cell_seconds, asked or int(_MEMORY_SHARE * plan.available), asked=bool(asked))
    try:
        if save_kl_base and plan.texts.raw:
            _save(plan, files, save_kl_base, store, limits, progress, command)
            reference = plan.level(plan.reference)
            base_origin.write(save_kl_base, sha256(save_kl_base), reference.model, digests[reference.label])
        outcome = runner.run(cells, store, limits, progress, command)
    finally:
        for file in (files.answers_rows, files.raw_rows):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: the results stay
            folder.rmdir()
    measured = any(label and key[0] != "log-probs" for label, key in outcome.results)
    levels = tuple(_level(plan, level, outcome, digests[level.label]) for level in plan.levels)
    if not measured and all(level.status == "measured" for level in levels):
        raise MedmindError(
            "there is nothing to measure: " + "; ".join({gap.reason: None for level in levels for gap in level.gaps}),
            "ask for more with --measure",
        )
    report = Report(
        schema=SCHEMA,
        run=plan.sources.run.name if plan.sources.run else None,
        reference=plan.reference,
        random_weights=plan.config.random_weights,
        held_out=plan.texts.held_out,
        raw_text=plan.texts.raw_text,
        conditions=_conditions(plan, outcome, len(cells)),
        levels=levels,
        pick=pick(
            [level for level in levels if not level.base],
            plan.reference,
            plan.config.tolerance,
            plan.texts.held_out.rows if plan.texts.held_out else None,
        ),
        beside={},
    )
    names = [{"row": index, "id": plan.rows[index].get("id")} for index in plan.chosen]
    rows = _table(plan, outcome, "answers", names)
    chunks = [{"chunk": number} for number in range(len(plan.texts.raw.groups) if plan.texts.raw else 0)]
    return Outcome(report, rows, _table(plan, outcome, "raw", chunks), list(_questions(plan, outcome)), measured)


def _digests(plan: Plan, progress: Progress) -> dict[str, str]:
    digests = {}
    with progress("digests", sum(level.model.size for level in plan.levels), "B") as advance:
        for level in plan.levels:
            digests[level.label] = sha256(level.model.path)
            advance(level.model.size, level.label)
    return digests


def _known(plan: Plan, files: Files, digests: Mapping[str, str]) -> dict[str, str]:
    """Path in a request → what it stands for: files are known by content, wherever they lie."""
    known = {str(level.model.path): digests[level.label] for level in plan.levels}
    reference = digests[plan.reference]
    for text, file, rows in (
        (plan.texts.answers, files.answers, files.answers_rows),
        (plan.texts.raw, files.raw, files.raw_rows),
    ):
        if text:
            known[str(file)] = text.digest
            known[str(rows)] = f"log-probabilities of {text.digest} under {reference}"
    if plan.texts.kl_base:
        known[str(plan.texts.kl_base.path)] = sha256(plan.texts.kl_base.path)
    known |= {str(files.question_set(place)): asked.digest for place, asked in enumerate(plan.questions)}
    return known


def _write_texts(plan: Plan, files: Files) -> None:
    for text, file in ((plan.texts.answers, files.answers), (plan.texts.raw, files.raw)):
        if text:
            file.parent.mkdir(parents=True, exist_ok=True)
            texts.write(text, file)
    for place, asked in enumerate(plan.questions):
        files.questions.parent.mkdir(parents=True, exist_ok=True)
        questions.write(files.question_set(place), asked.questions)


def _demand_room(plan: Plan, cells: Sequence[Cell], files: Files, save_kl_base: Path | None) -> None:
    """Files of log-probabilities are large: refuse before the work when the disk cannot hold them."""
    wanted = {str(cell.before.key[1]) for cell in cells if cell.before}
    for text, rows in ((plan.texts.answers, files.answers_rows), (plan.texts.raw, files.raw_rows)):
        if text and str(rows) in wanted:
            size = reference_rows.size(text, plan.texts.vocabulary)
            require_space(rows.parent, size, "the reference's log-probabilities")
    if save_kl_base:
        if plan.texts.raw is None:
            raise MedmindError(
                f"there is no raw text to write {save_kl_base} of: {plan.texts.raw_gap or 'it is not measured'}",
                "give one with --text FILE",
            )
        size = reference_rows.size(plan.texts.raw, plan.texts.vocabulary)
        require_space(save_kl_base.parent, size, "the reference's log-probabilities")


def _save(
    plan: Plan,
    files: Files,
    target: Path,
    store: Store,
    limits: Limits,
    progress: Progress,
    command: Sequence[str],
) -> None:
    assert plan.texts.raw
    base_origin.beside(target).unlink(missing_ok=True)  # of the file that is replaced
    cell = matrix.log_probs(plan, plan.texts.raw, files.raw, target)
    found = runner.run([cell], store, limits, progress, command)
    if found.gaps or not found.results:
        raise MedmindError(f"{target} could not be written: {found.reason()}")


def _level(plan: Plan, level: Planned, outcome: runner.Outcome, digest: str) -> Level:
    model = level.model
    gaps = (
        [Gap("level", "refused", level.refusal, "memory")] if level.refusal else list(outcome.gaps.get(level.label, []))
    )
    if not level.refusal and plan.texts.raw_gap:
        gaps.append(Gap("raw text", "skipped", plan.texts.raw_gap))
    if not level.refusal and plan.questions_gap:
        gaps.append(Gap("multiple choice", "skipped", plan.questions_gap))
    lacking = [gap for gap in gaps if gap.status != "skipped"]
    status: Status = "measured"
    if lacking:
        status = "failed" if any(gap.status == "failed" for gap in lacking) else "refused"
    kv_types: tuple[KvType, ...] = plan.config.kv_types
    return Level(
        label=level.label,
        file=model.path.name,
        digest=digest,
        size=model.size,
        parameters=model.parameters,
        bits_per_weight=model.bits_per_weight,
        unquantized=model.unquantized,
        base=level.base,
        status=status,
        reason=level.refusal or "; ".join(f"{gap.cell}: {gap.reason}" for gap in lacking),
        gaps=tuple(gaps),
        figures=joining.figures(plan, outcome, level, "f16"),
        kv=tuple(joining.figures(plan, outcome, level, kv_type) for kv_type in kv_types),
    )


def _conditions(plan: Plan, outcome: runner.Outcome, cells: int) -> Conditions:
    return Conditions(
        created=outcome.created or datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=outcome.seconds,
        cpu=processor.name(),
        cores=machine.cores(),
        memory=machine.available_memory()[1],
        reserve=joining.RESERVE,
        load_before=outcome.load_before,
        system=platform.platform(),
        versions=machine.versions(),
        features=machine.llama_build(),
        context=plan.context,
        batch=BATCH,
        flash=FLASH,
        memory_as_chat=True,
        threads=plan.threads,
        contexts=plan.config.contexts,
        load_modes=plan.config.load_modes,
        prompt_tokens=plan.prompt_tokens,
        generated_tokens=plan.generated_tokens,
        rounds=plan.config.rounds,
        repeats=plan.config.repeats,
        kv_types=("f16", *plan.config.kv_types),
        bandwidth=joining.bandwidth(plan, outcome),
        cells=cells,
        reused=outcome.reused,
    )


def _table(
    plan: Plan, outcome: runner.Outcome, kind: str, names: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """One record a group: its name, its tokens, and by level the summed nats and the summed KL divergence."""
    results = {level.label: found for level in plan.levels if (found := outcome.get(level.label, kind, "f16"))}
    if not results:
        return []
    tokens = next(iter(results.values())).tokens
    return [
        {
            **name,
            "tokens": tokens[place],
            "nll": {label: found.nll[place] for label, found in results.items()},
            "kl": {label: found.kl[place] for label, found in results.items() if found.kl},
        }
        for place, name in enumerate(names)
    ]


def _questions(plan: Plan, outcome: runner.Outcome) -> Iterator[Mapping[str, Any]]:
    """One record a question: its task and id, and by level whether it was answered rightly, by the headline's rule."""
    for place, asked in enumerate(plan.questions):
        results = {
            level.label: found for level in plan.levels if (found := outcome.get(level.label, "choices", "f16", place))
        }
        rule = accuracy.headline(asked.questions)
        chosen = {label: accuracy.chosen(found, rule) for label, found in results.items()}
        for number, question in enumerate(asked.questions):
            options = {label: found[number] for label, found in chosen.items()}
            right = {label: option == question.answer for label, option in options.items() if option is not None}
            yield {"task": asked.name, "id": question.id, "right": right}
