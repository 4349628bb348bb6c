"""Whether a model will fit the memory, told before it is loaded, and what would fit instead.

Knows the header of the file, and no llama.cpp; what it allocated in the end says `decoder.Memory`.
"""

import platform
from dataclasses import dataclass

from medmind import console
from medmind.errors import MedmindError
from medmind.gguf_header import Header
from medmind_runtime.engine import attention, free_memory
from medmind_runtime.engine.hyperparameters import size
from medmind_runtime.engine.loading import KV_TYPES

_SMALLEST_CONTEXT = 512
_REPACKED = frozenset({2, 10, 12, 20, 39} | ({8, 13, 14} if platform.machine() in {"arm64", "aarch64"} else set()))
"""ggml types whose weights llama.cpp may lay out anew for the CPU; source: ggml_repack_get_optimal_repack_type."""


@dataclass(frozen=True)
class Forecast:
    """What loading will take, bytes.

    Attributes:
        weights: the file's own size; repacked weights take the place of mapped ones.
        repacked: bytes of them that may be.
        kv_per_token: keys and values of one token in every layer; 0 where the header does not tell.
        scores_per_token: attention's scores of one batch, for each place of the KV cache.
        scratch: intermediate results of one batch, roughly.
        context: tokens.
    """

    weights: int
    repacked: int
    kv_per_token: float
    scores_per_token: int
    scratch: int
    context: int

    @property
    def per_token(self) -> float:
        """What grows with the context."""
        return self.kv_per_token + self.scores_per_token

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + int(self.per_token * self.context) + self.scratch


def forecast(header: Header, *, context: int, batch: int, kv_type: str, flash: bool) -> Forecast:
    """What loading a file will take.

    KV cache: 2 x layers x KV heads x head size values a token (of `llama_kv_cache`; a sliding window takes less).
    """
    known = header.scalars
    heads, width = size(known, "attention.head_count"), size(known, "embedding_length")
    each = width // heads if heads else 0
    values = size(known, "attention.key_length", each) + size(known, "attention.value_length", each)
    kv = (
        size(known, "block_count") * size(known, "attention.head_count_kv", heads) * values * KV_TYPES[kv_type].bits / 8
    )
    scratch = 4 * 4 * batch * max(size(known, "feed_forward_length"), width)
    scores = 0 if flash else attention.score_bytes(known, context=1, batch=batch)
    repacked = sum(tensor.size for tensor in header.tensors if tensor.kind in _REPACKED)
    return Forecast(header.path.stat().st_size, repacked, kv, scores, scratch, context)


def demand_room(
    header: Header,
    *,
    context: int,
    batch: int,
    kv_type: str,
    flash: bool,
    mapped: bool = True,
    available: free_memory.FreeMemory | None = None,
) -> None:
    """Refuse a model that does not fit.

    Args:
        header: of the file.
        context, batch, kv_type, flash: as it would be loaded.
        mapped: whether the file is mapped; else it is copied.
        available: None asks the system.

    Raises:
        MedmindError: it does not fit; says by how much, and what would.
    """
    needed = forecast(header, context=context, batch=batch, kv_type=kv_type, flash=flash)
    there = available or free_memory.available(
        mapped=needed.weights if mapped else 0, copied=needed.repacked if mapped else 0
    )
    if there is None or needed.total + there.also <= there.bytes:
        return
    most = there.bytes - there.also
    ways = []
    quantized = forecast(header, context=context, batch=batch, kv_type="q8_0", flash=True)
    if kv_type in ("f32", "f16", "bf16") and quantized.total <= most:
        ways.append("--kv-type q8_0")
    left = most - needed.weights - needed.scratch
    if needed.per_token and (fitting := int(left / needed.per_token) // 256 * 256) >= _SMALLEST_CONTEXT:
        ways.append(f"--context {fitting}")
    ways.append("a smaller quant of the model")
    if there.limit:
        ways.append(f"a higher {there.limit}")
    raise MedmindError(
        f"{header.path} does not fit: it needs {console.human_bytes(needed.total + there.also)} "
        f"({console.human_bytes(int(needed.per_token * context))} of it for a context of {context} tokens) "
        f"and {console.human_bytes(there.bytes)} {f'are left by {there.limit}' if there.limit else 'are free'}",
        f"use {' or '.join(ways)}",
    )
