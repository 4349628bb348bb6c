"""Tensors of a safetensors directory, read a block of rows at a time. Knows no model and no adapter.

Plain reads, not a memory map: a disk that fails or a file that is cut while it is read becomes an error instead of the
end of the process, and no page of the weights counts as memory in use. numpy has no bfloat16: its bits are viewed as
uint16.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medmind import base, disk_errors
from medmind.errors import MedmindError
from medmind_convert.ggml import narrow, widen

Dtype = Literal["F32", "F16", "BF16"]
__all__ = ["STORAGE", "Dtype", "Tensor", "narrow", "open_tensors", "widen"]

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

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * STORAGE[self.dtype].itemsize

    def stored(self, start: int, stop: int) -> NDArray[np.generic]:
        """The rows (or elements, of a vector) from `start` to `stop` in their storage type, in memory of their own.

        Raises:
            MedmindError: the file ends before them.
            OSError: the disk cannot read them.
        """
        kind, inner = STORAGE[self.dtype], self.shape[1:]
        row = int(np.prod(inner, dtype=np.int64)) * kind.itemsize
        data = np.empty((stop - start) * row, np.uint8)
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.offset + start * row)
            view, done = data.data, 0
            while done < len(data):
                with disk_errors.named(self.file):
                    count = stream.readinto(view[done:])
                if not count:
                    raise MedmindError(
                        f"{self.file} ends within {self.name}",
                        "it was cut while it was read: restore it, and start again",
                    )
                done += count
        return data.view(kind).reshape(stop - start, *inner)

    def rows(self, which: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """The chosen rows (or elements, of a vector) as float32, exact, in memory of their own."""
        if isinstance(which, slice):
            start, stop, _ = which.indices(self.shape[0])
            return widen(self.stored(start, stop), self.dtype)
        if not len(which):
            return np.empty((0, *self.shape[1:]), np.float32)
        first = int(which.min())
        return widen(self.stored(first, int(which.max()) + 1)[which - first], self.dtype)


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
    count = math.prod(shape)
    if offsets[1] - offsets[0] != count * STORAGE[dtype].itemsize:
        raise MedmindError(
            f"{name} in {file} spans {offsets[1] - offsets[0]} bytes, its shape {tuple(shape)} in {dtype} does not",
            "download or copy it again",
        )
    return Tensor(name, file, dtype, tuple(shape), start + offsets[0])
