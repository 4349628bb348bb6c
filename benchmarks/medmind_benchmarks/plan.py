"""What a benchmark will do, checked before the slow work: files, reference, texts, context, memory. Starts no cell."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_benchmarks import effort, examples, machine, need, texts
from medmind_benchmarks.answers import files, matching
from medmind_benchmarks.answers.questions import QuestionSet
from medmind_benchmarks.config import QuantsConfig
from medmind_benchmarks.model_file import ModelFile, read
from medmind_benchmarks.plan_texts import Texts
from medmind_benchmarks.sources import Sources, is_base
from medmind_runtime.engine.threads import physical_cores

_PROMPT_TOKENS, _GENERATED_TOKENS = 512, 128
_WITHOUT_CONTEXT = 2048
"""Context for a model that names neither a training context nor one of its own."""
_SHORTEST = 1
"""Tokens: a level is refused whole only if no context is short enough; else the cells that do not fit are."""
_ROOM = 16
"""Tokens of the context that the speed cells leave free."""


@dataclass(frozen=True)
class Planned:
    """One level: its file, its name in tables, and why it will not be measured (empty when it will)."""

    label: str
    model: ModelFile
    base: bool
    refusal: str


@dataclass(frozen=True)
class Plan:
    """A benchmark that can start. `levels` run from the most precise file to the least, the untuned base last.

    Attributes:
        questions: multiple choice, one set a source.
        questions_gap: why there are none, where they were wanted.
        reduction: what is measured on less than usual because the model is large; empty when nothing is.
    """

    sources: Sources
    config: QuantsConfig
    levels: tuple[Planned, ...]
    reference: str
    rows: list[dict[str, Any]]
    chosen: tuple[int, ...]
    texts: Texts
    context: int
    threads: int
    prompt_tokens: int
    generated_tokens: int
    available: int
    questions: tuple[QuestionSet, ...]
    questions_gap: str
    reduction: str

    def level(self, label: str) -> Planned:
        """The level called `label`."""
        return next(level for level in self.levels if level.label == label)


def make(sources: Sources, config: QuantsConfig) -> Plan:
    """Check everything that can be checked without loading a model's weights.

    Raises:
        MedmindError: a bad file, different vocabularies or templates, bad rows, a text too short, a context too short
            for the speed cells.
    """
    models = sorted((read(file) for file in sources.files), key=lambda model: model.precision, reverse=True)
    bases = [model for model in models if is_base(model, models)]
    models = [model for model in models if model not in bases] + bases
    if sources.base:
        bases.append(read(sources.base))
        models.append(bases[-1])
    _demand_same_language(models, bases)
    config, reduction = effort.fit(config, max(model.parameters for model in models))
    rows = examples.read_rows(sources.heldout) if sources.heldout else []
    context = _context(models[0], config.context)
    available, total = machine.available_memory()
    levels = tuple(
        Planned(label, model, model in bases, _refusal(model, _SHORTEST, available, total))
        for label, model in zip(_labels(models, bases), models, strict=True)
    )
    able = [level for level in levels if not level.refusal] or levels  # the report says why of each
    chosen = tuple(examples.choose(rows, config.rows or None))
    # one that fits at the shortest context alone would have no log-probabilities for the others
    reference = next((one for one in able if not _refusal(one.model, context, available, total)), able[0])
    speaks = reference.model
    questions, questions_gap = _questions(config, rows)
    return Plan(
        sources=sources,
        config=config,
        levels=levels,
        reference=reference.label,
        rows=rows,
        chosen=chosen,
        texts=_texts(sources, config, speaks, rows, chosen, context),
        context=context,
        threads=config.threads or physical_cores(),
        prompt_tokens=_fits("--prompt-tokens", config.prompt_tokens, _PROMPT_TOKENS, context),
        generated_tokens=_fits("--gen-tokens", config.generated_tokens, _GENERATED_TOKENS, context),
        available=available,
        questions=questions,
        questions_gap=questions_gap,
        reduction=reduction,
    )


def _questions(config: QuantsConfig, rows: list[dict[str, Any]]) -> tuple[tuple[QuestionSet, ...], str]:
    """The question sets asked for; those made of held-out rows may be impossible, which is a gap and no error."""
    if "choices" not in config.measure:
        return (), ""
    if config.questions:
        sets = [files.load(source).first(config.most_questions) for source in config.questions]
        names = Counter(one.name for one in sets)
        return tuple(
            replace(one, name=f"{one.name}, {source}") if names[one.name] > 1 else one
            for one, source in zip(sets, config.questions, strict=True)
        ), ""
    try:
        return (matching.build(rows).first(config.most_questions),), ""
    except MedmindError as error:
        return (), error.message


def _texts(
    sources: Sources,
    config: QuantsConfig,
    model: ModelFile,
    rows: list[dict[str, Any]],
    chosen: Sequence[int],
    context: int,
) -> Texts:
    longest = model.trained_context
    if config.chunk < 4 or (longest and config.chunk > longest and config.chunk != QuantsConfig.chunk):
        raise MedmindError(f"--chunk {config.chunk} is not between 4 and the model's {longest} tokens of context")
    with texts.speaker(model) as spoken:
        return Texts.make(
            spoken,
            model,
            sources,
            rows=rows,
            chosen=chosen,
            context=context,
            system_prompt=model.system_prompt,
            chunk=min(config.chunk, longest or config.chunk),
            chunks=config.chunks,
            wanted=config.measure,
        )


def _demand_same_language(models: Sequence[ModelFile], bases: Sequence[ModelFile]) -> None:
    """Perplexities over different tokens, or over differently framed ones, cannot be compared.

    The untuned base reads the others' token ids: of its own it needs the vocabulary alone.
    """
    first = models[0]
    for model in models[1:]:
        framed = model not in bases
        what = (
            "vocabularies"
            if model.vocabulary != first.vocabulary
            else "chat templates"
            if framed and model.template != first.template
            else "system prompts"
            if framed and model.system_prompt != first.system_prompt
            else ""
        )
        if what:
            raise MedmindError(
                f"{first.path} and {model.path} have different {what}, their perplexities cannot be compared",
                "benchmark files of one model together",
            )


def _context(model: ModelFile, wanted: int | None) -> int:
    longest = model.trained_context
    if wanted is not None:
        if longest and wanted > longest:
            raise MedmindError(f"the models hold {longest} tokens of context, not {wanted}", "give a smaller --context")
        return wanted
    trained = int(model.metadata.get("medmind.context", 0))
    return trained or min(longest or _WITHOUT_CONTEXT, _WITHOUT_CONTEXT)


def _fits(option: str, wanted: int | None, usual: int, context: int) -> int:
    room = context - _ROOM
    if room < 1:
        raise MedmindError(f"a context of {context} tokens is too short to measure in", "give a larger --context")
    if wanted is not None and wanted > room:
        raise MedmindError(f"{option} {wanted} does not fit a context of {context} tokens", f"give at most {room}")
    return wanted or min(usual, room)


def _refusal(model: ModelFile, context: int, available: int, total: int) -> str:
    needed = need.process_bytes(model, context)
    if needed <= available:
        return ""
    return (
        f"needs {human_bytes(needed)} of memory, this machine has {human_bytes(available)} free of {human_bytes(total)}"
    )


def _labels(models: Sequence[ModelFile], bases: Sequence[ModelFile]) -> list[str]:
    """The quantization's name, with `base` before the untuned one's; the file's name where two files share one."""
    names = [f"base {model.quant}" if model in bases else model.quant for model in models]
    shared = Counter(names)
    labels = [name if shared[name] == 1 else Path(model.path).stem for name, model in zip(names, models, strict=True)]
    taken = Counter(labels)
    return [label if taken[label] == 1 else str(model.path) for label, model in zip(labels, models, strict=True)]
