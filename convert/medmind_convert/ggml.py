"""libggml, the library behind llama.cpp, for rows of numbers: its types, conversions, products and quantizers.

Knows arrays only; knows no tensor's name and no file. Calls release Python's lock, so that threads run side by side.
"""

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind import llama
from medmind.errors import MedmindError

_TENSOR_ROOM = 1 << 14
"""Bytes that ggml's own records of three tensors and a graph of one operation take at most, beside their data."""


class GgmlError(MedmindError):
    """libggml failed, and nothing is known to be wrong with what it was given: another try may go well."""


@dataclass(frozen=True)
class Type:
    """One of ggml's tensor types.

    Attributes:
        name: upper case, as the gguf package spells it (`Q4_K`).
        number: of `enum ggml_type`.
        block: values in a block; rows must be a multiple of it.
        bytes: bytes of a block.
        quantized: whether it is no plain number type.
    """

    name: str
    number: int
    block: int
    bytes: int
    quantized: bool

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` values.

        Raises:
            ValueError: the row is no whole number of blocks.
        """
        if columns % self.block:
            raise ValueError(f"a row of {columns} values is no whole number of {self.name} blocks")
        return columns // self.block * self.bytes

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this shape, rows first."""
        return int(np.prod(shape[:-1], dtype=np.int64)) * self.row_bytes(shape[-1])


class _InitParams(ctypes.Structure):
    """`struct ggml_init_params` of ggml.h."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@cache
def libraries() -> tuple[Any, Any]:
    """libggml-base and libggml-cpu of the installed llama-cpp-python, with the signatures used here.

    libggml-cpu in its usual build, whatever the CPU: from the same importance matrix, or none, a file is the same on
    all that run it.
    """
    package = Path(llama.load().__file__ or "").parent / "lib"
    found = []
    for stem in ("ggml-base", "ggml-cpu"):
        name = (
            f"{stem}.dll" if sys.platform == "win32" else f"lib{stem}.{'dylib' if sys.platform == 'darwin' else 'so'}"
        )
        if not (package / name).is_file():
            raise MedmindError(
                f"llama-cpp-python was built without {package / name}",
                "build it as medmind does: make install, or CMAKE_ARGS=-DBUILD_SHARED_LIBS=ON pip install "
                "--force-reinstall --no-binary=:all: llama-cpp-python",
            )
        found.append(ctypes.CDLL(str(package / name)))
    base, cpu = found
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    for library, name, result, arguments in (
        (base, "ggml_type_name", ctypes.c_char_p, (number,)),
        (base, "ggml_blck_size", size, (number,)),
        (base, "ggml_type_size", ctypes.c_size_t, (number,)),
        (base, "ggml_is_quantized", ctypes.c_bool, (number,)),
        (base, "ggml_validate_row_data", ctypes.c_bool, (number, pointer, ctypes.c_size_t)),
        (
            base,
            "ggml_quantize_chunk",
            ctypes.c_size_t,
            (number, pointer, pointer, size, size, size, pointer),
        ),
        (base, "ggml_init", pointer, (_InitParams,)),
        (base, "ggml_free", None, (pointer,)),
        (base, "ggml_new_tensor_2d", pointer, (pointer, number, size, size)),
        (base, "ggml_get_data", pointer, (pointer,)),
        (base, "ggml_out_prod", pointer, (pointer, pointer, pointer)),
        (base, "ggml_new_graph_custom", pointer, (pointer, ctypes.c_size_t, ctypes.c_bool)),
        (base, "ggml_build_forward_expand", None, (pointer, pointer)),
        (cpu, "ggml_graph_compute_with_ctx", number, (pointer, pointer, number)),
        (cpu, "ggml_cpu_fp32_to_bf16", None, (pointer, pointer, size)),
        (cpu, "ggml_cpu_bf16_to_fp32", None, (pointer, pointer, size)),
        (cpu, "ggml_cpu_fp32_to_fp16", None, (pointer, pointer, size)),
        (cpu, "ggml_cpu_fp16_to_fp32", None, (pointer, pointer, size)),
        (cpu, "ggml_cpu_init", None, ()),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    cpu.ggml_cpu_init()  # fills the tables of conversion, which must not happen in several threads at once
    return base, cpu


@cache
def types() -> Mapping[str, Type]:
    """Every type of the installed libggml by its name."""
    base, _ = libraries()
    found = {}
    for number in range(llama.load().GGML_TYPE_COUNT):
        name = base.ggml_type_name(number)
        if not name or base.ggml_blck_size(number) < 1:
            continue
        kind = name.decode().upper()
        found[kind] = Type(
            kind, number, base.ggml_blck_size(number), base.ggml_type_size(number), base.ggml_is_quantized(number)
        )
    return found


def quantize(values: NDArray[np.float32], kind: Type, weights: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Rows as a tensor type stores them, exactly as llama-quantize does (`llama_tensor_quantize_impl`).

    Args:
        values: shape (rows, columns), finite, contiguous.
        kind: the type; columns must be a multiple of its block.
        weights: importance of each column, shape (columns,), or None.

    Returns:
        Bytes, shape (rows, bytes of a row).

    Raises:
        GgmlError: it wrote fewer bytes than the rows take.
        MedmindError: the result holds NaN or infinite scales.
    """
    base, _ = libraries()
    rows, columns = values.shape
    if not values.flags.c_contiguous or values.dtype != np.float32:
        raise ValueError("quantize wants contiguous float32 rows")
    out = np.empty((rows, kind.row_bytes(columns)), np.uint8)
    if kind.name == "F32":
        out.view(np.float32)[:] = values
        return out
    if weights is not None and (weights.shape != (columns,) or weights.dtype != np.float32):
        raise ValueError(f"importance of shape {weights.shape} for rows of {columns}")
    written = base.ggml_quantize_chunk(
        kind.number,
        values.ctypes.data,
        out.ctypes.data,
        0,
        rows,
        columns,
        None if weights is None else np.ascontiguousarray(weights).ctypes.data,
    )
    if written != out.nbytes:
        raise GgmlError(f"libggml wrote {written} of {out.nbytes} bytes of {kind.name}", "start again")
    if not base.ggml_validate_row_data(kind.number, out.ctypes.data, out.nbytes):
        raise MedmindError(f"{kind.name} came out with values that are not finite", "take a type of more bits")
    return out


def outer(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """B @ A in float32, each sum in the order of the rank and each step fused, as torch's product on the CPU has it.

    numpy's own product sums in another order, which leaves a merged weight now and then one step of the 16-bit type
    away from PEFT's. ggml's outer product (`ggml_compute_forward_out_prod_f32` in ggml-cpu/ops.cpp) adds one row of A
    at a time. tests/convert/test_ggml.py compares bit for bit over a 7B's shapes.

    Args:
        a: shape (rank, columns).
        b: shape (rows, rank).
    """
    base, cpu = libraries()
    rank, columns = a.shape
    rows = b.shape[0]
    f32 = types()["F32"].number
    room = np.empty(4 * (rank * columns + rank * rows + rows * columns) + _TENSOR_ROOM, np.uint8)
    start = room.ctypes.data

    def values(tensor: int, *shape: int) -> NDArray[np.float32]:
        at = base.ggml_get_data(tensor) - start
        return room[at : at + 4 * shape[0] * shape[1]].view(np.float32).reshape(shape)

    context = base.ggml_init(_InitParams(room.nbytes, start, False))
    if not context:
        raise GgmlError("libggml could not begin to multiply the adapter's matrices", "is the memory full?")
    try:
        left = base.ggml_new_tensor_2d(context, f32, columns, rank)
        right = base.ggml_new_tensor_2d(context, f32, rows, rank)
        values(left, rank, columns)[:] = a
        values(right, rank, rows)[:] = b.T
        product = base.ggml_out_prod(context, left, right)
        graph = base.ggml_new_graph_custom(context, 4, False)
        base.ggml_build_forward_expand(graph, product)
        if cpu.ggml_graph_compute_with_ctx(context, graph, 1) != 0:
            raise GgmlError("libggml could not multiply the adapter's matrices", "is the memory full?")
        return values(product, rows, columns)
    finally:
        base.ggml_free(context)


def widen(stored: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """Stored F32, F16 or BF16 (as uint16) values as float32, exact, in memory of their own."""
    return (
        _convert(stored, f"ggml_cpu_{_SHORT[dtype]}_to_fp32", np.dtype(np.float32))
        if dtype != "F32"
        else stored.astype(np.float32)
    )


def narrow(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """float32 values as `dtype` is stored, rounded to nearest even as torch does; F16 overflows to infinity."""
    if dtype == "F32":
        return values.astype("<f4", copy=False)
    stored = _convert(values, f"ggml_cpu_fp32_to_{_SHORT[dtype]}", np.dtype(np.uint16))
    return stored.view("<f2") if dtype == "F16" else stored


_SHORT = {"F16": "fp16", "BF16": "bf16"}


def _convert(source: NDArray[np.generic], function: str, target: np.dtype[Any]) -> NDArray[Any]:
    _, cpu = libraries()
    source = np.ascontiguousarray(source)
    out = np.empty(source.shape, target)
    getattr(cpu, function)(source.ctypes.data, out.ctypes.data, source.size)
    return out
