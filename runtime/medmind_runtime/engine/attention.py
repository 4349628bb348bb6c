"""How attention is computed, by llama.cpp's flash attention or plainly, and in what steps a prompt is read.

Knows headers and sizes; no model in memory.
"""

from collections.abc import Mapping

from medmind_runtime.engine import hyperparameters

PLAIN = frozenset(["f16", "f32"])
"""Kinds of KV cache that are read without flash attention."""
_STEP_WORK = 1_500_000_000
"""Floating-point operations that a thread surely does in 100 ms."""
_SCORES = 64 * 2**20
"""Bytes that the scores of a step may take, where steps are not at their shortest."""
_MANY = 8
"""Threads from which flash attention is as fast."""
_NARROW_HEAD = 64
_OWN = frozenset(["f16", "bf16", "q8_0"])
_OWN_WIDTH = 32
"""What scripts/llama_attention.cpp knows: kinds of KV cache, and what widths of heads are multiples of."""
_SHORTEST, _LONGEST = 32, 512
"""Tokens of a step."""


def own(header: Mapping[str, str | int], kv_type: str) -> bool:
    """Whether scripts/llama_attention.cpp, where llama.cpp was built with it, computes a model's attention on a CPU.

    Source: `Attention::known` there; that a model has sinks its header does not tell.
    """
    heads = hyperparameters.size(header, "attention.head_count")
    each = hyperparameters.size(header, "embedding_length") // heads if heads else 0
    widths = [hyperparameters.size(header, f"attention.{name}_length", each) for name in ("key", "value")]
    narrower = [f"attention.{name}_length_swa" for name in ("key", "value")]  # in some layers
    widths += [hyperparameters.size(header, name) for name in narrower if hyperparameters.key(header, name) in header]
    fits = all(one and one % _OWN_WIDTH == 0 for one in widths)
    other = {hyperparameters.key(header, name) for name in ("attn_logit_softcapping", "attention.max_alibi_bias")}
    return fits and kv_type in _OWN and other.isdisjoint(header)


def flash(kv_type: str, threads: int, *, on_gpu: bool, own: bool) -> bool:
    """Whether flash attention is used: with llama.cpp's own, all but where few threads compute on 16- or 32-bit values.

    On a CPU llama.cpp's kernel for it (`ggml_compute_forward_flash_attn_ext`) goes through the keys for one head and
    one token after the other, and sums 16-bit values in 16 bits. Two matrix products are faster far into a conversation
    while few threads share them; scripts/llama_attention.cpp is faster than both (scripts/measure_depth.py). Quantized
    values flash attention alone reads.

    Args:
        kv_type: of the KV cache.
        threads: that compute.
        on_gpu: whether layers are on a GPU.
        own: whether scripts/llama_attention.cpp computes it.
    """
    return on_gpu or own or kv_type not in PLAIN or threads >= _MANY


def same_bits(kv_type: str, *, own: bool) -> bool:
    """Whether a token gets the same bits beside others as alone.

    scripts/llama_attention.cpp sees to that. llama.cpp's flash attention sums a single token over f16 and f32 in as
    many parts as there are threads (`ggml_compute_forward_flash_attn_ext_f16`), and a matrix product of several rows
    in another order than of one (`llamafile_sgemm`): rounding to 8 bits before the next product hides most of it.
    """
    return own or kv_type not in PLAIN


def score_bytes(header: Mapping[str, str | int], *, context: int, batch: int) -> int:
    """What the scores of every head for a step take without flash attention: 4 bytes for each of its tokens and each
    place of the KV cache; more than that with a sliding window.

    Where the header has a number of heads for each layer, which is not read here, heads are taken to be 64 wide.
    """
    narrow = hyperparameters.size(header, "embedding_length") // _NARROW_HEAD
    heads = hyperparameters.size(header, "attention.head_count", narrow)
    return 4 * batch * context * heads


def prompt_step(header: Mapping[str, str | int], threads: int, *, context: int, flash: bool) -> int:
    """Prompt tokens to evaluate at once: 512, or fewer where a matrix product or the scores would be too large.

    llama.cpp asks whether to stop between two products only; 32 tokens of a 7B keep one thread busy for some 50 ms, and
    as long with the keys of 4,000 others: with one thread and far more than these, stopping takes longer.
    The count depends on model, threads and context alone, so that the same question gets the same answer.
    """
    wide, narrow = (hyperparameters.size(header, name) for name in ("feed_forward_length", "embedding_length"))
    work = 2 * wide * narrow
    step = _LONGEST
    while step > _SHORTEST and (
        work * step > _STEP_WORK * threads or (not flash and score_bytes(header, context=context, batch=step) > _SCORES)
    ):
        step //= 2
    return step
