"""How a model is opened to be measured: as llama.cpp's own tools open it, so that figures compare with theirs.

Or, where what chat does is measured, as chat opens it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from medmind_runtime.config import KvType
from medmind_runtime.engine.loading import LoadMode

if TYPE_CHECKING:
    from medmind_runtime.engine.engine import Engine

BATCH = 512
"""Prompt tokens llama.cpp computes at once; llama-bench's default for its micro-batch."""
FLASH = True
"""Whether llama.cpp may use its flash attention, as its tools may."""


def opened(
    path: Path,
    *,
    context: int | None,
    threads: int,
    kv_type: KvType = "f16",
    load_mode: LoadMode = "auto",
    as_chat: bool = False,
) -> "Engine":
    """An engine with llama.cpp's own batch and attention, or with those that chat chooses.

    Args:
        path: the model.
        context, threads, kv_type, load_mode: see `assembly.Settings`.
        as_chat: whether batch and attention are chat's choice, by model and threads.

    Raises:
        MedmindError: the model cannot be loaded.
    """
    from medmind_runtime.engine.engine import Engine

    batch, flash = (None, None) if as_chat else (BATCH, FLASH)
    return Engine.load(
        path, context=context, threads=threads, batch=batch, kv_type=kv_type, flash=flash, load_mode=load_mode
    )


def told(batch: int, *, flash: bool) -> str:
    """What a report was measured with, for people."""
    theirs = ", as llama.cpp's tools have them" if (batch, flash) == (BATCH, FLASH) else ""
    return f"batch {batch}, flash attention {'on' if flash else 'off'}{theirs}; chat chooses both by model and threads"
