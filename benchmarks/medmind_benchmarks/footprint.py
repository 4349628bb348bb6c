"""The cell that measures memory: one fresh process that loads a model, reads a prompt and generates.

Knows one load mode, one context and one type of KV cache at a time. A process of its own is the point: what another
model left behind would be counted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medmind import llama
from medmind.memory import resident
from medmind_benchmarks.cell import Advance
from medmind_benchmarks.figures import Memory
from medmind_benchmarks.opening import opened
from medmind_runtime.config import KvType
from medmind_runtime.engine.loading import LoadMode

_GENERATED = 8
PROMPT = 512
"""Tokens read, less where the context is shorter: one full batch at least, which llama.cpp's buffers are made for."""


@dataclass(frozen=True)
class Request:
    """What to load, and how: `as_chat`, since what a machine needs is what chat takes there."""

    kind: Literal["memory"]
    model: str
    kv_type: KvType
    load_mode: LoadMode
    context: int
    threads: int
    as_chat: bool = True


def measure(request: Request, advance: Advance) -> Memory:
    """Load, read `PROMPT` tokens, generate a few, and see what was resident.

    Raises:
        MedmindError: the model cannot be loaded so.
    """
    from medmind_runtime.engine.sampling import Sampling

    llama.load()
    baseline = resident().now
    with opened(
        Path(request.model),
        context=request.context,
        threads=request.threads,
        kv_type=request.kv_type,
        load_mode=request.load_mode,
        as_chat=request.as_chat,
    ) as engine:
        advance()
        size = len(engine.vocabulary)
        length = max(1, min(PROMPT, request.context - _GENERATED))
        prompt = [7919 * place % size for place in range(1, length + 1)]
        for _ in engine.generate(prompt, sampling=Sampling(temperature=0), max_tokens=_GENERATED):
            pass
        end = resident()
        found = engine.memory
    return Memory(
        load_mode=request.load_mode,
        context=request.context,
        weights=found.weights,
        repacked=found.repacked,
        kv_cache=found.kv_cache,
        compute=found.compute,
        library=baseline,
        peak=end.peak,
        anonymous=end.anonymous,
        file_backed=end.file_backed,
    )
