"""What scripts/llama_attention.cpp computes, and what numpy says to it, in 64 bits."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from own_ggml import Array, Ggml


@dataclass(frozen=True)
class Case:
    """Shapes: of queries heads x tokens x width, of keys and values shared x places x width.

    `mask`: see `mask_of`. `left`: llama.cpp computes it itself.
    """

    kind: Kind
    threads: int = 1
    heads: int = 8
    shared: int = 2
    tokens: int = 1
    places: int = 100
    width: int = 128
    value_width: int = 128
    cap: float = 0.0
    bias: float = 0.0
    sinks: bool = False
    mask: str = "causal"
    left: bool = False


def attention(
    ggml: Ggml, case: Case, q: Array, k: NDArray[np.uint8], v: NDArray[np.uint8], mask: Array | None
) -> Array:
    """Of llama.cpp's own shapes: heads lie side by side at each place, as in its cache; tokens x heads x width."""
    base = ggml.base
    memory, tensor = ggml.begin()

    def cache(values: NDArray[np.uint8], width: int) -> int:
        lines = values.transpose(1, 0, 2)
        return int(base.ggml_permute(memory, tensor(case.kind, lines, width, case.shared, case.places, 1), 0, 2, 1, 3))

    queries = tensor(0, q.transpose(1, 0, 2), case.width, case.heads, case.tokens, 1)
    added = None
    if mask is not None:
        added = tensor(1, mask.astype(np.float16), case.places, case.tokens, len(mask), 1)
    found = base.ggml_flash_attn_ext(
        memory, base.ggml_permute(memory, queries, 0, 2, 1, 3), cache(k, case.width), cache(v, case.value_width),
        added, case.width**-0.5, case.bias, case.cap,
    )  # fmt: skip
    if case.sinks:
        base.ggml_flash_attn_ext_add_sinks(found, tensor(0, sinks_of(case), case.heads, 1, 1, 1))
    return ggml.computed(memory, found, case.threads).reshape(case.tokens, case.heads, case.value_width)


def sinks_of(case: Case) -> Array:
    """A score for each head that no place has."""
    return np.linspace(4, 9, case.heads, dtype=np.float32)


def mask_of(case: Case) -> Array | None:
    """What is added to the scores of tokens that stand at the last places: heads (1: of all) x tokens x places.

    Each token sees what stands before it, but for a hole at every fifth place. `window`: 40 places at most; `blind`:
    the first one none; `soft`: some less than others; `heads`: each head otherwise; `none`: all of them everything.
    """
    at, begin = np.arange(case.places), case.places - case.tokens
    own = begin + np.arange(case.tokens)[:, None]
    seen = (at <= own) & ((at % 5 != 2) | (at > begin))
    if case.mask == "window":
        seen &= at > own - 40
    if case.mask == "blind":
        seen[0] = False
    count = case.heads if case.mask == "heads" else 1
    soft = np.random.default_rng(2).uniform(-3, 0, (count, case.tokens, case.places)).astype(np.float16)
    added = soft.astype(np.float32) if case.mask in ("soft", "heads") else np.float32(0)
    return None if case.mask == "none" else np.where(seen, added, np.float32(-np.inf)).reshape(count, *seen.shape)


def tensors(case: Case, seed: int = 0) -> tuple[Array, NDArray[np.uint8], NDArray[np.uint8]]:
    """Queries, and keys and values as their kind keeps them."""
    chance = np.random.default_rng(seed)

    def drawn(*shape: int) -> Array:
        return chance.standard_normal(shape, dtype=np.float32)

    k = drawn(case.shared, case.places, case.width)
    v = drawn(case.shared, case.places, case.value_width)
    q = 3 * drawn(case.heads, case.tokens, case.width)
    return q, *(quantize(one, case.kind).view(np.uint8) for one in (k, v))


def exactly(
    case: Case, q: Array, k: NDArray[np.uint8], v: NDArray[np.uint8], mask: Array | None
) -> NDArray[np.float64]:
    """The same by the formula; source: `ggml_flash_attn_ext` of ggml.h."""
    dtype = np.float16 if case.kind == Kind.F16 else np.uint8
    keys, values = (
        np.repeat(dequantize(one.view(dtype), case.kind).astype(float), case.heads // case.shared, 0) for one in (k, v)
    )
    scores = np.einsum("htw,hpw->htp", q.astype(float), keys) * case.width**-0.5
    scores = case.cap * np.tanh(scores / case.cap) if case.cap else scores
    slopes = 2.0 ** (-case.bias * np.arange(1, case.heads + 1) / case.heads)
    scores += 0 if mask is None else mask * slopes[:, None, None]
    if case.sinks:
        rest = np.broadcast_to(sinks_of(case)[:, None, None], (*scores.shape[:2], 1))
        scores = np.concatenate([scores, rest], -1)
    weights = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e9))
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)  # nothing for who sees nothing
    found: NDArray[np.float64] = np.einsum("htp,hpw->thw", weights[..., : case.places], values)
    return found


def cases() -> list[Case]:
    """Kinds, threads, shapes, and what is left to llama.cpp."""
    kinds = [Kind.F16, Kind.BF16, Kind.Q8_0]
    shapes = [
        {"tokens": tokens, "places": places, "threads": threads}
        for tokens, places, threads in itertools.product((1, 3, 9), (1, 63, 64, 300), (1, 2, 3, 8, 16))
        if tokens <= places
    ]
    heads, widths = ((4, 4), (6, 2), (32, 8), (8, 1)), ((64, 64), (96, 96), (192, 128), (256, 256))
    more: list[dict[str, Any]] = [{"heads": all_heads, "shared": shared, "tokens": 5} for all_heads, shared in heads]
    more += [{"width": width, "value_width": wide, "tokens": 2} for width, wide in widths]
    groups = ((9, 66, 1), (200, 513, 7), (70, 70, 2))  # tokens on either side of a block's end
    more += [{"tokens": tokens, "places": places, "threads": threads} for tokens, places, threads in groups]
    masks = itertools.product(("window", "blind", "soft", "none"), (1, 5))
    more += [{"mask": mask, "tokens": tokens, "places": 210, "threads": 3} for mask, tokens in masks]
    left: list[dict[str, Any]] = [{"width": 80, "value_width": 80}, {"cap": 5.0}, {"bias": 8.0}, {"sinks": True}]
    left += [
        {"mask": "heads"},
        {"heads": 500, "shared": 500, "width": 32, "value_width": 32},
    ]  # too many for the buffer
    own = [Case(kind, **shape) for kind in kinds for shape in shapes + more]
    return own + [Case(Kind.F16, left=True, **shape) for shape in left]
