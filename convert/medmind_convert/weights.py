"""Tensors of a safetensors directory, read by memory map a block of rows at a time. Knows no model and no adapter.

numpy has no bfloat16: its bits are viewed as uint16, widened to float32 by a shift and rounded back by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medmind import base
from medmind.errors import MedmindError

Dtype = Literal["F32", "F16", "BF16"]
STORAGE: Mapping[Dtype, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
"""How each floating-point type lies in a file; bfloat16 as its bits."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file, not yet read.

    Attributes:
        name: as in the file.
        file: the safetensors file.
        dtype: `F32`, `F16` or `BF16`.
        shape: row-major, `(rows, columns)` or `(length,)`.
        offset: first byte in the file.
    """

    name: str
    file: Path
    dtype: Dtype
    shape: tuple[int, ...]
    offset: int

    @cached_property
    def stored(self) -> NDArray[np.generic]:
        """The memory-mapped values in their storage type, shape `self.shape`."""
        return np.memmap(self.file, STORAGE[self.dtype], mode="r", offset=self.offset, shape=self.shape)

    def rows(self, which: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """The chosen rows (or elements, of a vector) as float32, exact, in memory of their own."""
        return widen(np.asarray(self.stored[which]), self.dtype)


def widen(values: NDArray[np.generic], dtype: Dtype) -> NDArray[np.float32]:
    """Stored values as float32; exact for all three types."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32)


def narrow(values: NDArray[np.float32], dtype: Dtype) -> NDArray[np.generic]:
    """float32 values as `dtype` is stored, rounded to nearest even as torch and ggml do; NaN stays NaN for F16 only.

    Callers check for NaN first: adding the rounding bias to a NaN's bits could turn it into an infinity.
    """
    if dtype == "F32":
        return values.astype("<f4", copy=False)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    bits = np.ascontiguousarray(values).view(np.uint32)
    bias = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    return ((bits + bias) >> np.uint32(16)).astype("<u2")


def open_tensors(files: list[Path]) -> dict[str, Tensor]:
    """Name -> tensor over several safetensors files; reads headers only.

    Raises:
        MedmindError: a file that is cut off, a tensor twice, a type other than F32, F16, BF16, or a size that its
            shape does not give.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        with file.open("rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
        for name, entry in base.safetensors_header(file).items():
            if name in tensors:
                raise MedmindError(f"{name} is both in {tensors[name].file.name} and in {file.name}", "copy it again")
            tensors[name] = _tensor(name, file, entry, start)
    return tensors


def _tensor(name: str, file: Path, entry: Mapping[str, Any], start: int) -> Tensor:
    dtype: Dtype = entry.get("dtype", "none")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if dtype not in STORAGE:
        raise MedmindError(
            f"{name} in {file} is of type {dtype}", f"medmind converts {', '.join(STORAGE)}: take the unquantized model"
        )
    if not (
        isinstance(shape, list)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(isinstance(number, int) and number >= 0 for number in [*shape, *offsets])
    ):
        raise MedmindError(f"{name} in {file} has a broken header entry", "download or copy it again")
    count = int(np.prod(shape, dtype=np.int64))
    if offsets[1] - offsets[0] != count * STORAGE[dtype].itemsize:
        raise MedmindError(
            f"{name} in {file} spans {offsets[1] - offsets[0]} bytes, its shape {tuple(shape)} in {dtype} does not",
            "download or copy it again",
        )
    return Tensor(name, file, dtype, tuple(shape), start + offsets[0])
