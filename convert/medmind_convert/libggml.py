"""libggml's own functions, as llama-cpp-python loads the library: tensors of a graph, rows to a type and back.

Knows ggml.h's types and its tensor struct; knows no model. Source: ggml/include/ggml.h and ggml-backend.h.
"""

import ctypes
from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind import console


class Type(IntEnum):
    """ggml.h's `ggml_type`, those that a tensor of a file can have."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    IQ1_M = 29
    BF16 = 30


class TensorHead(ctypes.Structure):
    """ggml.h's `struct ggml_tensor`, in the version that pyproject.toml pins."""


TensorHead._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(TensorHead) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]

_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _Traits(ctypes.Structure):
    """ggml.h's `struct ggml_type_traits`."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


_SIGNATURES: Mapping[str, tuple[Any, list[Any]]] = {
    "ggml_op_name": (ctypes.c_char_p, [ctypes.c_int]),
    "ggml_blck_size": (ctypes.c_int64, [ctypes.c_int]),
    "ggml_row_size": (ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]),
    "ggml_get_type_traits": (ctypes.POINTER(_Traits), [ctypes.c_int]),
    "ggml_quantize_requires_imatrix": (ctypes.c_bool, [ctypes.c_int]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p],
    ),
    "ggml_backend_tensor_get": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]),
    "ggml_backend_tensor_set": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]),
    "ggml_nbytes": (ctypes.c_size_t, [ctypes.c_void_p]),
}


@cache
def load() -> Any:
    """The library, with the signatures of the functions that medmind calls.

    Raises:
        MedmindError: llama-cpp-python is not installed.
    """
    library = console.require("llama_cpp._ggml", "convert").libggml
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def block(kind: Type) -> int:
    """Values that a block of this type holds; rows must be multiples of it."""
    return int(load().ggml_blck_size(kind))


def row_bytes(kind: Type, width: int) -> int:
    """Bytes of a row of `width` values."""
    return int(load().ggml_row_size(kind, width))


def needs_imatrix(kind: Type) -> bool:
    """Whether libggml cannot make this type without an importance matrix."""
    return bool(load().ggml_quantize_requires_imatrix(kind))


def quantize(
    values: NDArray[np.float32], kind: Type, importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Rows as this type lies in a file.

    Args:
        values: shape (rows, columns), columns a multiple of the type's block.
        kind: the type.
        importance: shape (columns,), how much an error in each column counts.

    Returns:
        Shape (rows, bytes of a row).
    """
    rows, columns = values.shape
    if columns % block(kind):
        raise ValueError(f"rows of {columns} values cannot be {kind.name}")
    if importance is not None and importance.shape != (columns,):
        raise ValueError(f"importance of {importance.shape} for {columns} columns")
    values = np.ascontiguousarray(values, np.float32)
    out = np.empty((rows, row_bytes(kind, columns)), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    load().ggml_quantize_chunk(
        kind, values.ctypes.data, out.ctypes.data, 0, rows, columns, None if weights is None else weights.ctypes.data
    )
    return out


def dequantize(stored: NDArray[np.uint8], kind: Type, columns: int) -> NDArray[np.float32]:
    """What rows of `quantize` stand for, shape (rows, columns)."""
    out = np.empty((len(stored), columns), np.float32)
    if kind is Type.F32:
        out[:] = stored.view("<f4")
        return out
    stored = np.ascontiguousarray(stored)
    convert = _TO_FLOAT(load().ggml_get_type_traits(kind).contents.to_float)
    convert(stored.ctypes.data, out.ctypes.data, out.size)
    return out
