"""The settings of `medmind-bench quants`: their names and defaults. Knows nothing of what is done with them."""

from dataclasses import dataclass
from typing import Literal

from medmind_runtime.config import KvType
from medmind_runtime.engine.loading import LoadMode

Measure = Literal["answers", "raw", "choices", "memory", "speed"]
MEASURES: tuple[Measure, ...] = ("answers", "raw", "choices", "memory", "speed")


@dataclass(frozen=True)
class QuantsConfig:
    """Settings of `medmind-bench quants`, and the only home of their defaults.

    Attributes:
        measure: what to measure.
        rows: at most this many held-out rows; 0 takes all.
        rounds, repeats: processes for each speed, and repetitions in each.
        threads: None takes the physical cores.
        context: tokens; None takes the context the model was trained with.
        prompt_tokens: of the prompt-speed measurement; None is 512 as in llama-bench, or what the context holds.
        generated_tokens: of the generation-speed measurement; None is 128 as in llama-bench, or what the context holds.
        tolerance: relative rise of perplexity that the pick may accept.
        kv_types: quantized KV caches to measure beside the 16-bit one.
        contexts, load_modes: of the memory cells.
        chunk, chunks: of raw text: tokens of one, and at most how many (0: all).
        questions: sources of multiple-choice questions; none makes some of the held-out rows.
        most_questions: of each source; 0 takes all.
        kl: how a level is compared with the reference: both models side by side, or one after the other through a file;
            `auto` takes the former where both fit in memory.
        cell_seconds, cell_memory: limits of a cell; memory in bytes, None for what is free.
        random_weights: whether the model was never trained.
        asked: names of the settings that the user gave; `effort` leaves those as they are.
    """

    measure: tuple[Measure, ...] = MEASURES
    rows: int = 128
    rounds: int = 2
    repeats: int = 3
    threads: int | None = None
    context: int | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    tolerance: float = 0.02
    kv_types: tuple[KvType, ...] = ()
    contexts: tuple[int, ...] = (512, 2048, 8192)
    load_modes: tuple[LoadMode, ...] = ("auto", "mmap", "copy")
    chunk: int = 512
    chunks: int = 32
    questions: tuple[str, ...] = ()
    most_questions: int = 100
    kl: Literal["auto", "direct", "base-file"] = "auto"
    cell_seconds: float = 4 * 3600
    cell_memory: int | None = None
    random_weights: bool = False
    asked: frozenset[str] = frozenset()


QUICK = QuantsConfig(
    measure=("answers", "raw", "memory", "speed"),
    rows=32,
    rounds=1,
    repeats=2,
    generated_tokens=32,
    contexts=(512,),
    load_modes=("auto",),
    chunks=8,
    most_questions=20,
)
"""`--quick`: a first look, in minutes where the whole takes hours; multiple choice, the slowest, is left out."""
