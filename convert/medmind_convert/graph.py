"""Tensors of a graph that llama.cpp computes, and rows of any type back as numbers, through libggml.

Knows ggml.h's tensor struct of the version that pyproject.toml pins; `ggml.py` knows types and quantizers.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind_convert import ggml
from medmind_convert.ggml import Type

_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class TensorHead(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""


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


class _Traits(ctypes.Structure):
    """`struct ggml_type_traits` of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def _library() -> Any:
    base, _ = ggml.libraries()
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in (
        ("ggml_op_name", ctypes.c_char_p, (ctypes.c_int,)),
        ("ggml_nbytes", size, (pointer,)),
        ("ggml_get_type_traits", ctypes.POINTER(_Traits), (ctypes.c_int,)),
        ("ggml_backend_tensor_get", None, (pointer, pointer, size, size)),
    ):
        function = getattr(base, name)
        function.restype, function.argtypes = result, arguments
    return base


def operation(node: TensorHead) -> str:
    """What a node computes, as `MUL_MAT`."""
    found: bytes = _library().ggml_op_name(node.op)
    return found.decode()


def read(tensor: ctypes.c_void_p, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A float32 tensor's values, wherever they lie, in memory of their own.

    Raises:
        ValueError: the tensor is of another size.
    """
    found = np.empty(shape, np.float32)
    if int(_library().ggml_nbytes(tensor)) != found.nbytes:
        raise ValueError(f"a tensor of {_library().ggml_nbytes(tensor)} bytes is no {shape}")
    _library().ggml_backend_tensor_get(tensor, found.ctypes.data, 0, found.nbytes)
    return found


def dequantize(stored: NDArray[np.uint8], kind: Type, columns: int) -> NDArray[np.float32]:
    """What rows of `ggml.quantize` stand for, shape (rows, columns)."""
    stored = np.ascontiguousarray(stored)
    if kind.name == "F32":
        return stored.view("<f4").reshape(-1, columns)
    out = np.empty((stored.size // kind.row_bytes(columns), columns), np.float32)
    convert = _TO_FLOAT(_library().ggml_get_type_traits(kind.number).contents.to_float)
    convert(stored.ctypes.data, out.ctypes.data, out.size)
    return out
