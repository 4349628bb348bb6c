"""How a model may be loaded: choices and a default. Imports nothing heavy: a command line lists them at once."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

LoadMode = Literal["auto", "mmap", "copy"]
"""How weights come into memory.

`mmap` maps the file and leaves it so: what llama.cpp repacks for this CPU then lies in memory twice. `copy` reads the
file into memory of its own. `auto` maps it and lets the pages go that have been copied; they come back from the
system's file cache where a tensor is used as it lies in the file. Only Linux has that; elsewhere `auto` is `mmap`.
"""
GpuLayers = int | Literal["auto"]
"""Layers on the GPU; `auto` as many as fit its free memory, none where llama.cpp was built without one."""

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]


class KvFormat(NamedTuple):
    """Of keys or values: `number` is ggml's of the type, `bits` what one of them takes."""

    number: int
    bits: float


KV_TYPES: Mapping[str, KvFormat] = {
    "f32": KvFormat(0, 32.0),
    "f16": KvFormat(1, 16.0),
    "bf16": KvFormat(30, 16.0),
    "q8_0": KvFormat(8, 8.5),
    "q5_1": KvFormat(7, 6.0),
    "q5_0": KvFormat(6, 5.5),
    "q4_1": KvFormat(3, 5.0),
    "q4_0": KvFormat(2, 4.5),
}
"""What keys and values can be kept in (llama.cpp's common/arg.cpp, `kv_cache_types`). Sources: `ggml_type` of ggml.h,
of which llama-cpp-python does not name bf16, and the block layouts of ggml-common.h."""
DEFAULT_CONTEXT = 4096
"""Tokens that are remembered unless told otherwise, at most: a model may have been trained on fewer."""
