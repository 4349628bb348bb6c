"""What medmind's own files in llama.cpp compute, called through ggml itself, and what numpy says to it, in 64 bits.

As a program: `own_kernels.py FOLDER LIB`, of llama_cpp's libraries and of one libggml-cpu, writes as JSON what
tests/medmind/test_own_kernels.py asks about.
"""

import ctypes
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

Array = NDArray[np.float32]
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_SIZE = 16 << 20


class _Memory(ctypes.Structure):
    """`ggml_init_params` of ggml.h."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", _POINTER), ("no_alloc", ctypes.c_bool))


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


class Ggml:
    """ggml with one build of libggml-cpu; another in the same process would call the functions of the first."""

    def __init__(self, folder: Path, cpu: Path) -> None:
        base = ctypes.CDLL(str(folder / "libggml-base.so.0"), mode=ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(cpu))
        for name, takes in {
            "ggml_init": [_Memory],
            "ggml_new_tensor_4d": [_POINTER, ctypes.c_int, *[_COUNT] * 4],
            "ggml_permute": [_POINTER, _POINTER, *[ctypes.c_int] * 4],
            "ggml_flash_attn_ext": [*[_POINTER] * 5, *[ctypes.c_float] * 3],
            "ggml_new_graph": [_POINTER],
            "ggml_get_data": [_POINTER],
        }.items():
            getattr(base, name).argtypes, getattr(base, name).restype = takes, _POINTER
        base.ggml_mul_mat.argtypes, base.ggml_mul_mat.restype = [_POINTER] * 3, _POINTER
        base.ggml_build_forward_expand.argtypes = base.ggml_flash_attn_ext_add_sinks.argtypes = [_POINTER] * 2
        base.ggml_free.argtypes = base.ggml_nbytes.argtypes = [_POINTER]
        base.ggml_nbytes.restype = ctypes.c_size_t
        self.cpu.ggml_graph_compute_with_ctx.argtypes = [_POINTER, _POINTER, ctypes.c_int]
        self.cpu.ggml_cpu_init()
        self.cpu.ggml_backend_cpu_reg.restype = _POINTER
        for name, takes in {
            "ggml_backend_reg_dev_get": [_POINTER, ctypes.c_size_t],
            "ggml_backend_reg_get_proc_address": [_POINTER, ctypes.c_char_p],
            "ggml_backend_buft_alloc_buffer": [_POINTER, ctypes.c_size_t],
            "ggml_backend_buffer_get_base": [_POINTER],
        }.items():
            getattr(base, name).argtypes, getattr(base, name).restype = takes, _POINTER
        base.ggml_backend_tensor_alloc.argtypes = [_POINTER] * 3
        base.ggml_backend_tensor_set.argtypes = [_POINTER, _POINTER, ctypes.c_size_t, ctypes.c_size_t]
        base.ggml_backend_buffer_free.argtypes = [_POINTER]
        self._base = base
        self._buffer = ctypes.create_string_buffer(_SIZE)

    def attention(self, case: Case, q: Array, k: NDArray[np.uint8], v: NDArray[np.uint8], mask: Array | None) -> Array:
        """Of llama.cpp's own shapes: heads lie side by side at each place, as in its cache; tokens x heads x width."""
        base = self._base
        memory, tensor = self._begin()

        def cache(values: NDArray[np.uint8], width: int) -> int:
            lines = values.transpose(1, 0, 2)
            return int(
                base.ggml_permute(memory, tensor(case.kind, lines, width, case.shared, case.places, 1), 0, 2, 1, 3)
            )

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
        return self._computed(memory, found, case.threads).reshape(case.tokens, case.heads, case.value_width)

    def product(self, weights: NDArray[np.uint8], tokens: Array, threads: int, kind: Kind = Kind.Q8_0) -> Array:
        """Of tokens (tokens x width) by packed weights (rows x bytes of width numbers): tokens x rows."""
        memory, tensor = self._begin()
        width = tokens.shape[1]
        matrix = tensor(kind, weights, width, len(weights), 1, 1)
        found = self._base.ggml_mul_mat(memory, matrix, tensor(0, tokens, width, len(tokens), 1, 1))
        return self._computed(memory, found, threads).reshape(len(tokens), len(weights))

    def products(self, weights: NDArray[np.uint8], tokens: Array, threads: int, kind: Kind) -> Array:
        """As `product` of several matrices, matrices x rows x bytes, each by as many groups of tokens as there are."""
        memory, tensor = self._begin()
        groups, count, width = tokens.shape
        matrices = tensor(kind, weights, width, weights.shape[1], len(weights), 1)
        found = self._base.ggml_mul_mat(memory, matrices, tensor(0, tokens, width, count, groups, 1))
        return self._computed(memory, found, threads).reshape(groups, count, weights.shape[1])

    def repacked(self, weights: NDArray[np.uint8], tokens: Array, threads: int, kind: Kind) -> Array:
        """As `product`, with weights as llama.cpp lays them for this processor."""
        base = self._base
        only = base.ggml_init(_Memory(1 << 16, None, True))
        matrix = base.ggml_new_tensor_4d(only, kind, tokens.shape[1], len(weights), 1, 1)
        buffer = base.ggml_backend_buft_alloc_buffer(self._repacking(), base.ggml_nbytes(matrix))
        base.ggml_backend_tensor_alloc(buffer, matrix, base.ggml_backend_buffer_get_base(buffer))
        raw = np.ascontiguousarray(weights).tobytes()
        base.ggml_backend_tensor_set(matrix, raw, 0, len(raw))
        memory, tensor = self._begin()
        found = base.ggml_mul_mat(memory, matrix, tensor(0, tokens, tokens.shape[1], len(tokens), 1, 1))
        numbers = self._computed(memory, found, threads).reshape(len(tokens), len(weights))
        base.ggml_backend_buffer_free(buffer)
        base.ggml_free(only)
        return numbers

    def single(self, weights: NDArray[np.uint8], token: Array, kind: Kind) -> Array:
        """Of one token by packed weights, as llama.cpp computes it: a number for each row."""
        name = {Kind.Q8_0: "q8_0", Kind.Q6_K: "q6_K"}[kind]
        rounding = name.replace("q6", "q8")
        rounded = ctypes.create_string_buffer(2 * len(token))
        getattr(self.cpu, f"quantize_row_{rounding}")(token.ctypes.data_as(_POINTER), rounded, _COUNT(len(token)))
        found = np.zeros(len(weights), np.float32)
        for row, numbers in enumerate(weights):
            place, size = found[row:].ctypes.data_as(_POINTER), ctypes.c_size_t(0)
            raw = np.ascontiguousarray(numbers).ctypes.data_as(_POINTER)
            dot = getattr(self.cpu, f"ggml_vec_dot_{name}_{rounding}")
            dot(len(token), place, size, raw, size, rounded, size, 1)
        return found

    def _repacking(self) -> int:
        """The kind of memory that repacks: the first of the CPU's own that is not the usual one."""
        cpu = self.cpu.ggml_backend_cpu_reg()
        extra = self._base.ggml_backend_reg_get_proc_address(cpu, b"ggml_backend_dev_get_extra_bufts")
        kinds = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)(extra)
        return int(kinds(self._base.ggml_backend_reg_dev_get(cpu, 0))[0] or 0)

    def _begin(self) -> tuple[int, Callable[..., int]]:
        """Memory of ggml, and what makes a tensor there of a kind, numbers and a shape."""
        base = self._base
        ctypes.memset(
            self._buffer, 0xFF, _SIZE
        )  # as numbers these are none: whoever reads what nobody wrote is found out
        memory = base.ggml_init(_Memory(_SIZE, ctypes.addressof(self._buffer), False))

        def tensor(kind: int, values: NDArray[np.generic], *shape: int) -> int:
            made = base.ggml_new_tensor_4d(memory, kind, *shape)
            raw = np.ascontiguousarray(values).tobytes()
            ctypes.memmove(base.ggml_get_data(made), raw, len(raw))
            return int(made)

        return memory, tensor

    def _computed(self, memory: int, found: int, threads: int) -> Array:
        """The numbers of a tensor; the memory is freed."""
        graph = self._base.ggml_new_graph(memory)
        self._base.ggml_build_forward_expand(graph, found)
        self.cpu.ggml_graph_compute_with_ctx(memory, graph, threads)
        raw = ctypes.string_at(self._base.ggml_get_data(found), self._base.ggml_nbytes(found))
        self._base.ggml_free(memory)
        return np.frombuffer(raw, np.float32)


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


def main(folder: Path, cpu: Path) -> None:
    """Errors of each case of attention, whether a token has the bits that it has alone in another cache; products."""
    ggml = Ggml(folder, cpu)
    ggml.cpu.medmind_attention.restype = ctypes.c_bool
    errors, alike = {}, {}
    for case in cases():
        given = tensors(case)
        mask = mask_of(case)
        found = ggml.attention(case, *given, mask)
        errors[repr(case)] = float(np.abs(found - exactly(case, *given, mask)).max())
        if case.tokens > 1 and mask is not None:
            q, k, v = given
            one = replace(case, tokens=1, places=case.places + 70)
            k, v = (np.concatenate([part, part[:, :1].repeat(70, 1)], 1) for part in (k, v))
            wide = np.pad(mask, ((0, 0), (0, 0), (0, 70)), constant_values=-np.inf)
            singles = [ggml.attention(one, q[:, at : at + 1], k, v, wide[:, at : at + 1]) for at in range(case.tokens)]
            alike[repr(case)] = bool((np.concatenate(singles) == found).all())
    told = {"own": bool(ggml.cpu.medmind_attention()), "errors": errors, "alike": alike, "products": products(ggml)}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
