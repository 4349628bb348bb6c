"""ggml with one build of libggml-cpu, for what medmind's own files in llama.cpp compute."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

Array = NDArray[np.float32]
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_SIZE = 16 << 20


class _Memory(ctypes.Structure):
    """`ggml_init_params` of ggml.h."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", _POINTER), ("no_alloc", ctypes.c_bool))


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
            "ggml_view_2d": [_POINTER, _POINTER, _COUNT, _COUNT, ctypes.c_size_t, ctypes.c_size_t],
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
        self.base = base
        self._buffer = ctypes.create_string_buffer(_SIZE)

    def product(self, weights: NDArray[np.uint8], tokens: Array, threads: int, kind: Kind, *, apart: int = 0) -> Array:
        """Of tokens (tokens x width) by packed weights (rows x bytes of width numbers): tokens x rows.

        Between two tokens lie so many numbers that belong to none.
        """
        memory, tensor = self.begin()
        width, count = tokens.shape[1], len(tokens)
        matrix = tensor(kind, weights, width, len(weights), 1, 1)
        wide = tensor(0, np.pad(tokens, ((0, 0), (0, apart)), constant_values=np.nan), width + apart, count, 1, 1)
        given = self.base.ggml_view_2d(memory, wide, width, count, 4 * (width + apart), 0) if apart else wide
        found = self.base.ggml_mul_mat(memory, matrix, given)
        return self.computed(memory, found, threads).reshape(len(tokens), len(weights))

    def products(self, weights: NDArray[np.uint8], tokens: Array, threads: int, kind: Kind) -> Array:
        """As `product` of several matrices, matrices x rows x bytes, each by as many groups of tokens as there are."""
        memory, tensor = self.begin()
        groups, count, width = tokens.shape
        matrices = tensor(kind, weights, width, weights.shape[1], len(weights), 1)
        found = self.base.ggml_mul_mat(memory, matrices, tensor(0, tokens, width, count, groups, 1))
        return self.computed(memory, found, threads).reshape(groups, count, weights.shape[1])

    def repacked(self, weights: NDArray[np.uint8], tokens: Array, threads: int, kind: Kind) -> Array:
        """As `product`, with weights as llama.cpp lays them for this processor."""
        base = self.base
        only = base.ggml_init(_Memory(1 << 16, None, True))
        matrix = base.ggml_new_tensor_4d(only, kind, tokens.shape[1], len(weights), 1, 1)
        buffer = base.ggml_backend_buft_alloc_buffer(self._repacking(), base.ggml_nbytes(matrix))
        base.ggml_backend_tensor_alloc(buffer, matrix, base.ggml_backend_buffer_get_base(buffer))
        raw = np.ascontiguousarray(weights).tobytes()
        base.ggml_backend_tensor_set(matrix, raw, 0, len(raw))
        memory, tensor = self.begin()
        found = base.ggml_mul_mat(memory, matrix, tensor(0, tokens, tokens.shape[1], len(tokens), 1, 1))
        numbers = self.computed(memory, found, threads).reshape(len(tokens), len(weights))
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
        extra = self.base.ggml_backend_reg_get_proc_address(cpu, b"ggml_backend_dev_get_extra_bufts")
        kinds = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)(extra)
        return int(kinds(self.base.ggml_backend_reg_dev_get(cpu, 0))[0] or 0)

    def begin(self) -> tuple[int, Callable[..., int]]:
        """Memory of ggml, and what makes a tensor there of a kind, numbers and a shape."""
        base = self.base
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

    def computed(self, memory: int, found: int, threads: int) -> Array:
        """The numbers of a tensor; the memory is freed."""
        graph = self.base.ggml_new_graph(memory)
        self.base.ggml_build_forward_expand(graph, found)
        self.cpu.ggml_graph_compute_with_ctx(memory, graph, threads)
        raw = ctypes.string_at(self.base.ggml_get_data(found), self.base.ggml_nbytes(found))
        self.base.ggml_free(memory)
        return np.frombuffer(raw, np.float32)
