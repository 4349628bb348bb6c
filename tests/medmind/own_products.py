"""What scripts/llama_few_rows*.cpp compute, what llama.cpp does of single tokens, and numpy in 64 bits."""

import ctypes
import itertools
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from own_ggml import Ggml


def drawn(kind: Kind, rows: int, width: int, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Weights: of q8_0 rounded ones, of the others every number that their bytes can hold, on small scales."""
    if kind == Kind.Q8_0:
        packed = quantize(chance.standard_normal((rows, width), dtype=np.float32), kind)
        packed.reshape(rows, -1, 34)[0, 0, 2:4] = 128  # -128, which rounding never gives
        return packed
    size, scales = {Kind.Q4_K: (144, slice(0, 4)), Kind.Q6_K: (210, slice(208, 210))}[kind]
    blocks = chance.integers(0, 256, (rows, width // 256, size), np.uint8)
    small = chance.uniform(0.001, 0.01, (*blocks.shape[:2], (scales.stop - scales.start) // 2)).astype(np.float16)
    blocks[..., scales] = small.view(np.uint8)
    return blocks.reshape(rows, -1)


def products(ggml: Ggml) -> dict[str, Any]:
    """By kind and shape: the largest error beside the largest number, whether tokens have the bits that they have
    alone, and whether these are the bits that llama.cpp computes.

    `own`: how many products were medmind's, and `batches` of several matrices; `other`: the error of one in q4_0, which
    is llama.cpp's.
    """
    ggml.cpu.medmind_products.restype = ctypes.c_uint64
    errors, alike, singly = {}, {}, {}
    chance = np.random.default_rng(1)
    kinds = (
        (Kind.Q8_0, ggml.product, (1, 7, 64), (32, 96, 512)),
        (Kind.Q6_K, ggml.product, (1, 7, 64), (256, 768, 1024)),
        (Kind.Q4_K, ggml.repacked, (8, 24, 72), (256, 768, 1024)),
    )
    for kind, product, heights, widths in kinds:
        for rows, width, threads in itertools.product(heights, widths, (1, 2, 5)):
            weights = drawn(kind, rows, width, chance)
            tokens = chance.standard_normal((9, width), dtype=np.float32)
            tokens[1, :256] = 0
            tokens[2] = 1  # all of them the largest one
            singles = np.concatenate([product(weights, one[None], 1, kind) for one in tokens])
            exact = tokens.astype(float) @ dequantize(weights, kind).astype(float).T
            if kind == Kind.Q4_K:  # by nine, of which llama.cpp takes eight at once and one by itself
                usual = [(8, product(weights, tokens, threads, kind)[8])]
            else:
                usual = [(at, ggml.single(weights, one, kind)) for at, one in enumerate(tokens)]
            singly[f"{kind.name}, {rows} x {width}, {threads} threads"] = all(
                bool((singles[at] == one).all()) for at, one in usual
            )
            for count in range(2, 10):
                found = product(weights, tokens[:count], threads, kind)
                case = f"{kind.name}, {rows} x {width} by {count}, {threads} threads"
                errors[case] = float(np.abs(found - exact[:count]).max() / np.abs(exact).max())
                if count < 9:
                    alike[case] = bool((found == singles[:count]).all())
                if count == 8 and kind != Kind.Q4_K:
                    found = ggml.product(weights, tokens[:8], threads, kind, apart=32)
                    alike[f"{case}, apart"] = bool((found == singles[:8]).all())
    own = ggml.cpu.medmind_products()
    for kind, threads in itertools.product((Kind.Q8_0, Kind.Q6_K), (1, 2, 5)):
        matrices = np.stack([drawn(kind, 21, 256, chance) for _ in range(2)])
        groups = chance.standard_normal((6, 3, 256), dtype=np.float32)
        all_at_once = ggml.products(matrices, groups, threads, kind)
        one_by_one = [ggml.single(matrices[at // 3], token, kind) for at in range(6) for token in groups[at]]
        singly[f"{kind.name}, matrices, {threads} threads"] = bool((all_at_once.reshape(18, -1) == one_by_one).all())
    found = {
        "errors": errors,
        "alike": alike,
        "singly": singly,
        "own": own,
        "batches": ggml.cpu.medmind_products() - own,
    }
    weights, tokens = (chance.standard_normal((8, 64), dtype=np.float32) for _ in range(2))
    packed = quantize(weights, Kind.Q4_0)
    exact = tokens.astype(float) @ dequantize(packed, Kind.Q4_0).astype(float).T
    other = np.abs(ggml.product(packed, tokens, 2, Kind.Q4_0) - exact).max() / np.abs(exact).max()
    return {**found, "other": float(other)}
