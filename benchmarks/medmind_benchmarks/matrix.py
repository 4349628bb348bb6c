"""The cells of a benchmark: which measurement of which level, what it asks of the machine, what it waits for.

Knows a plan and the requests of the cells; runs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medmind.console import human_bytes
from medmind_benchmarks import bandwidth, footprint, need, pace, reference_rows, score
from medmind_benchmarks.answers import cell as answers
from medmind_benchmarks.figures import Bandwidth, Memory
from medmind_benchmarks.plan import Plan, Planned
from medmind_benchmarks.texts import Text
from medmind_runtime.config import KvType

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Key = tuple[str | int, ...]
"""What a cell measures of its level: ("answers", KV type), ("memory", KV type, load mode, context), …"""
_FLOPS = 2e10
"""Operations a second that one thread's share of a plan is taken to make; only the proportions of cells matter."""
_START_SECONDS = 1.5
_CHARACTERS = 3.5
"""Of English text in a token, roughly."""
_SLOWER_ALONE = 4
"""How much more a token costs that is generated alone than one of a prompt, roughly."""


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        level: label; empty for what concerns the machine.
        key: unique within the level.
        name: for people.
        request, result: what is sent, and the dataclass that comes back.
        steps: how often it reports progress.
        work: seconds it may take, roughly.
        refusal: why it is not run; empty when it is.
        skipped: that the refusal is no fault of the machine: the cell has no meaning for this model.
        before: a cell whose file this one reads.
    """

    level: str
    key: Key
    name: str
    request: "DataclassInstance"
    result: type[Any]
    steps: int
    work: float
    refusal: str = ""
    skipped: bool = False
    before: "Cell | None" = None


@dataclass(frozen=True)
class Files:
    """Where the parent puts what cells read."""

    answers: Path
    raw: Path
    answers_rows: Path
    raw_rows: Path
    questions: Path

    def question_set(self, place: int) -> Path:
        """The file of the plan's question set of that number."""
        return self.questions.with_name(f"{self.questions.name}-{place}.jsonl")


def cells(plan: Plan, files: Files) -> list[Cell]:
    """Every cell of the levels that are not refused whole, in the order of running.

    Scores come first, memory next; the speeds of all levels take turns at the end, so that what slows the machine for a
    while slows every level.
    """
    able = [level for level in plan.levels if not level.refusal]
    if not able:
        return []
    kv_types: list[KvType] = ["f16", *plan.config.kv_types]
    found: list[Cell] = []
    for kv_type in kv_types:
        for level in able:
            found += _scores(plan, files, level, kv_type)
    for kv_type in kv_types:
        for place in range(len(plan.questions)):
            found += [_choices(plan, files, level, kv_type, place) for level in able]
    if "memory" in plan.config.measure:
        for kv_type in kv_types:
            for level in able:
                found += _memory(plan, level, kv_type)
    if "speed" in plan.config.measure:
        for turn in range(plan.config.rounds):
            request = bandwidth.Request("bandwidth", plan.threads, plan.config.repeats, turn)
            name = f"memory bandwidth, round {turn + 1}"
            found.append(Cell("", ("bandwidth", turn), name, request, Bandwidth, plan.config.repeats, 2))
            for kv_type in kv_types:
                found += [_speed(plan, level, kv_type, turn) for level in able]
    return found


def side_by_side(plan: Plan, level: Planned, text: Text, kv_type: str = "f16") -> bool:
    """Whether a level and the reference are run in one process."""
    if plan.config.kl != "auto":
        return plan.config.kl == "direct"
    return _together(plan, level, text, kv_type) <= plan.available


def _together(plan: Plan, level: Planned, text: Text, kv_type: str) -> int:
    return _need(level, text.context, kv_type) + need.model_bytes(plan.level(plan.reference).model, text.context)


def _need(level: Planned, context: int, kv_type: str) -> int:
    return need.process_bytes(level.model, context, kv_type)


def _lack(plan: Plan, needed: int) -> str:
    if needed <= plan.available:
        return ""
    return f"it needs {human_bytes(needed)} of memory, {human_bytes(plan.available)} are free"


def _of(name: str, kv_type: str) -> str:
    return name if kv_type == "f16" else f"{name}, KV cache {kv_type}"


def _scores(plan: Plan, files: Files, level: Planned, kv_type: KvType) -> Iterator[Cell]:
    texts = plan.texts
    named: list[tuple[Literal["answers", "raw"], str, Text | None, Path, Path]] = [
        ("answers", "answers", texts.answers, files.answers, files.answers_rows),
        ("raw", "raw text", texts.raw, files.raw, files.raw_rows),
    ]
    for kind, name, text, file, rows in named:
        if text is not None:
            yield _score(plan, level, kv_type, text, (kind, _of(name, kv_type), file, rows))


def _score(plan: Plan, level: Planned, kv_type: KvType, text: Text, place: tuple[str, str, Path, Path]) -> Cell:
    kind, name, file, rows = place
    itself = level.label == plan.reference and kv_type == "f16"
    base = plan.texts.kl_base if kind == "raw" else None
    direct = not itself and base is None and side_by_side(plan, level, text, kv_type)
    stored = base.path if base else None if itself or direct else rows
    before = None
    offset = base.offset if base else 0
    if stored == rows:
        before = _log_probs(plan, text, file, rows, chunked=kind == "raw")
        offset = row_offset(text) if kind == "raw" else 0
    reference = plan.level(plan.reference).model
    operations = 2 * text.work * (level.model.parameters + (reference.parameters if direct else 0))
    return Cell(
        level=level.label,
        key=(kind, kv_type),
        name=name,
        request=score.Request(
            kind="score",
            model=str(level.model.path),
            kv_type=kv_type,
            reference=str(reference.path) if direct else "",
            reference_rows=str(stored) if stored else "",
            offset=offset,
            text=str(file),
            threads=plan.threads,
        ),
        result=score.Result,
        steps=len(text.groups),
        work=_START_SECONDS + operations / _FLOPS,
        refusal=_lack(plan, _together(plan, level, text, kv_type) if direct else _need(level, text.context, kv_type)),
        before=before,
    )


def _choices(plan: Plan, files: Files, level: Planned, kv_type: KvType, place: int) -> Cell:
    asked = plan.questions[place]
    characters = sum(len(one.prompt) + 2 * sum(map(len, one.scored)) for one in asked.questions)
    return Cell(
        level=level.label,
        key=("choices", kv_type, place),
        name=_of(f"multiple choice, {asked.name}", kv_type),
        request=answers.Request(
            kind="answers",
            model=str(level.model.path),
            questions=str(files.question_set(place)),
            digest=asked.digest,
            context=plan.context,
            threads=plan.threads,
            kv_type=kv_type,
            system_prompt=level.model.system_prompt,
        ),
        result=answers.AnswersResult,
        steps=len(asked.questions),
        work=_START_SECONDS + 2 * characters / _CHARACTERS * level.model.parameters / _FLOPS,
        refusal=_lack(plan, _need(level, plan.context, kv_type)),
    )


def row_offset(text: Text) -> int:
    """Where the rows begin in the file that `reference_rows` writes of a text in chunks."""
    return 8 + 12 + 4 * text.work


def log_probs(plan: Plan, text: Text, file: Path, rows: Path) -> Cell:
    """The cell that writes the reference's log-probabilities of raw text, for --save-kl-base."""
    return _log_probs(plan, text, file, rows, chunked=True)


def _log_probs(plan: Plan, text: Text, file: Path, rows: Path, *, chunked: bool) -> Cell:
    reference = plan.level(plan.reference)
    return Cell(
        level=reference.label,
        key=("log-probs", str(rows)),
        name="log-probabilities of " + ("raw text" if chunked else "answers"),
        request=reference_rows.Request(
            "log-probs", str(reference.model.path), str(file), chunked, str(rows), plan.threads
        ),
        result=reference_rows.Result,
        steps=len(text.groups),
        work=_START_SECONDS + 2 * text.work * reference.model.parameters / _FLOPS,
        refusal=_lack(plan, _need(reference, text.context, "f16")),
    )


def _memory(plan: Plan, level: Planned, kv_type: KvType) -> Iterator[Cell]:
    longest = level.model.trained_context
    for mode in plan.config.load_modes:
        for context in plan.config.contexts:
            short = f"the model holds {longest} tokens" if longest and context > longest else ""
            tokens = min(footprint.PROMPT, context)
            yield Cell(
                level=level.label,
                key=("memory", kv_type, mode, context),
                name=_of(f"memory, context {context}, load mode {mode}", kv_type),
                request=footprint.Request("memory", str(level.model.path), kv_type, mode, context, plan.threads),
                result=Memory,
                steps=1,
                work=_START_SECONDS + 2 * tokens * level.model.parameters / _FLOPS,
                refusal=short or _lack(plan, _need(level, context, kv_type)),
                skipped=bool(short),
            )


def _speed(plan: Plan, level: Planned, kv_type: KvType, turn: int) -> Cell:
    config = plan.config
    tokens = (config.repeats + 2) * plan.prompt_tokens + _SLOWER_ALONE * config.repeats * plan.generated_tokens
    return Cell(
        level=level.label,
        key=("speed", kv_type, turn),
        name=_of(f"speed, round {turn + 1}", kv_type),
        request=pace.Request(
            kind="speed",
            model=str(level.model.path),
            kv_type=kv_type,
            threads=plan.threads,
            prompt_tokens=plan.prompt_tokens,
            generated_tokens=plan.generated_tokens,
            repeats=config.repeats,
            turn=turn,
        ),
        result=pace.Result,
        steps=pace.steps(config.repeats),
        work=_START_SECONDS + 2 * tokens * level.model.parameters / _FLOPS,
        refusal=_lack(plan, _need(level, plan.prompt_tokens + plan.generated_tokens, kv_type)),
    )
