"""How attention is computed, by llama.cpp's flash attention or plainly, and in what steps a prompt is read.

Knows headers and sizes; no model in memory.
"""

from collections.abc import Mapping

QUANTIZED = frozenset(["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
"""Kinds of KV cache whose values only flash attention reads."""
_STEP_WORK = 1_500_000_000
"""Floating-point operations that a thread surely does in 100 ms."""
_SCORES = 64 * 2**20
"""Bytes that the scores of a step may take, where steps are not at their shortest."""
_MANY = 8
"""Threads from which flash attention is as fast."""
_SHORTEST, _LONGEST = 32, 512
"""Tokens of a step."""


def flash(kv_type: str, threads: int, *, on_gpu: bool) -> bool:
    """Whether flash attention is used: on a GPU, where it has to be, and by many threads.

    On a CPU llama.cpp's kernel for it (`ggml_compute_forward_flash_attn_ext`) goes through the keys for one head and
    one token after the other, and sums 16-bit values in 16 bits. Two matrix products are faster far into a conversation
    while few threads share them (scripts/measure_depth.py: a token behind 2,000 others of a 7B takes 0.72 of the time
    with one thread, 1.03 with 8, 1.17 with 16). bf16 is for answers whose bits do not depend on how tokens come
    together: see `speculation.cache_type`.
    """
    return on_gpu or kv_type in QUANTIZED or (kv_type == "f16" and threads >= _MANY)


def score_bytes(header: Mapping[str, str | int], *, context: int, batch: int) -> int:
    """What the scores of every head for a step take without flash attention: 4 bytes for each of its tokens and each
    place of the KV cache.
    """
    heads = header.get(f"{header.get('general.architecture')}.attention.head_count", 0)
    return 4 * batch * context * heads if isinstance(heads, int) else 0


def prompt_step(header: Mapping[str, str | int], threads: int, *, context: int, flash: bool) -> int:
    """Prompt tokens to evaluate at once: 512, or fewer where a matrix product or the scores would be too large.

    llama.cpp asks whether to stop between two products only; 32 tokens of a 7B keep one thread busy for some 50 ms.
    The count depends on model, threads and context alone, so that the same question gets the same answer.
    """
    architecture = header.get("general.architecture")
    wide, narrow = (header.get(f"{architecture}.{name}", 0) for name in ("feed_forward_length", "embedding_length"))
    work = 2 * wide * narrow if isinstance(wide, int) and isinstance(narrow, int) else 0
    step = _LONGEST
    while step > _SHORTEST and (
        work * step > _STEP_WORK * threads or (not flash and score_bytes(header, context=context, batch=step) > _SCORES)
    ):
        step //= 2
    return step
