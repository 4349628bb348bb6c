"""What a benchmark will do, checked before the slow work: files, reference, rows, context, memory. Starts no cell."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_benchmarks import examples, machine
from medmind_benchmarks.model_file import ModelFile, read
from medmind_benchmarks.sources import Sources
from medmind_runtime.threads import physical_cores

_PROMPT_TOKENS = 512
_WITHOUT_CONTEXT = 2048
"""Context for a model that names neither a training context nor one of its own."""
_ROOM = 16
"""Tokens of the context that the speed cells leave free."""


@dataclass(frozen=True)
class QuantsConfig:
    """Settings of `medmind-bench quants`, and the only home of their defaults.

    Attributes:
        rows: at most this many held-out rows; 0 takes all.
        rounds: how often each speed is measured.
        threads: None takes the physical cores.
        context: tokens; None takes the context the model was trained with.
        prompt_tokens: of the prompt-speed measurement; None is 512 as in llama-bench, or what the context holds.
        generated_tokens: of the generation-speed measurement; None is 128 as in llama-bench, or what the context holds.
        tolerance: relative rise of perplexity that the pick may accept.
    """

    rows: int = 256
    rounds: int = 5
    threads: int | None = None
    context: int | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    tolerance: float = 0.02


@dataclass(frozen=True)
class Planned:
    """One level: its file, its name in tables, and why it will not be measured (empty when it will)."""

    label: str
    model: ModelFile
    refusal: str


@dataclass(frozen=True)
class Plan:
    """A benchmark that can start. `levels` run from the most precise file to the least."""

    sources: Sources
    levels: tuple[Planned, ...]
    reference: str
    rows: list[dict[str, Any]]
    chosen: tuple[int, ...]
    system_prompt: str
    context: int
    threads: int
    prompt_tokens: int
    generated_tokens: int
    rounds: int
    tolerance: float


def make(sources: Sources, config: QuantsConfig) -> Plan:
    """Check everything that can be checked without loading a model.

    Raises:
        MedmindError: a bad file, different vocabularies or templates, bad rows, a context too short for the speed
            cells, or not one model that fits in memory.
    """
    models = sorted((read(file) for file in sources.files), key=lambda model: model.precision, reverse=True)
    _demand_same_language(models)
    rows = examples.read_rows(sources.heldout)
    context = _context(models, config.context)
    prompt = _fits("--prompt-tokens", config.prompt_tokens, _PROMPT_TOKENS, context)
    generated = _fits("--gen-tokens", config.generated_tokens, 128, context)
    available, total = machine.available_memory()
    labels = _labels(models)
    levels = tuple(
        Planned(label, model, _refusal(model, context, available, total))
        for label, model in zip(labels, models, strict=True)
    )
    able = [level for level in levels if not level.refusal]
    if not able:
        raise MedmindError(
            f"not one of the models fits in memory: {levels[-1].label} {levels[-1].refusal}",
            "give smaller files, a smaller --context, or a machine with more memory",
        )
    return Plan(
        sources=sources,
        levels=levels,
        reference=able[0].label,
        rows=rows,
        chosen=tuple(examples.choose(rows, config.rows or None)),
        system_prompt=models[0].system_prompt,
        context=context,
        threads=config.threads or physical_cores(),
        prompt_tokens=prompt,
        generated_tokens=generated,
        rounds=config.rounds,
        tolerance=config.tolerance,
    )


def _demand_same_language(models: Sequence[ModelFile]) -> None:
    """Perplexities over different tokens, or over differently framed ones, cannot be compared."""
    first = models[0]
    for model in models[1:]:
        what = (
            "vocabularies"
            if model.vocabulary != first.vocabulary
            else "chat templates"
            if model.template != first.template
            else "system prompts"
            if model.system_prompt != first.system_prompt
            else ""
        )
        if what:
            raise MedmindError(
                f"{first.path} and {model.path} have different {what}, their perplexities cannot be compared",
                "benchmark files of one model together",
            )


def _context(models: Sequence[ModelFile], wanted: int | None) -> int:
    architecture = models[0].metadata.get("general.architecture", "")
    longest = int(models[0].metadata.get(f"{architecture}.context_length", 0))
    if wanted is not None:
        if longest and wanted > longest:
            raise MedmindError(f"the models hold {longest} tokens of context, not {wanted}", "give a smaller --context")
        return wanted
    trained = int(models[0].metadata.get("medmind.context", 0))
    return trained or min(longest or _WITHOUT_CONTEXT, _WITHOUT_CONTEXT)


def _fits(option: str, wanted: int | None, usual: int, context: int) -> int:
    room = context - _ROOM
    if room < 1:
        raise MedmindError(f"a context of {context} tokens is too short to measure in", "give a larger --context")
    if wanted is not None and wanted > room:
        raise MedmindError(f"{option} {wanted} does not fit a context of {context} tokens", f"give at most {room}")
    return wanted or min(usual, room)


def _refusal(model: ModelFile, context: int, available: int, total: int) -> str:
    need = model.tensor_bytes + model.kv_cache_bytes(context)
    if need <= available:
        return ""
    return (
        f"needs {human_bytes(need)} of memory, this machine has {human_bytes(available)} free of {human_bytes(total)}"
    )


def _labels(models: Sequence[ModelFile]) -> list[str]:
    """The quantization's name; the file's name where two files share one."""
    quants = Counter(model.quant for model in models)
    labels = [model.quant if quants[model.quant] == 1 else model.path.stem for model in models]
    taken = Counter(labels)
    return [label if taken[label] == 1 else str(model.path) for label, model in zip(labels, models, strict=True)]
