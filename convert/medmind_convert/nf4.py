"""What a base weight is while QLoRA trains on it: NF4 with double quantization, and back, as bitsandbytes computes it.

Source: QLoRA (arXiv:2305.14314, section 3) and bitsandbytes' backends/default/ops.py and functional.py. Knows numbers;
knows no adapter. Blocks run over the rows as they lie in memory: 64 weights share a scale, 256 scales share another.
"""

from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind_convert.weights import Dtype, Tensor, narrow, widen

BLOCK = 64
"""Weights that share a scale."""
NESTED = 256
"""Scales that share a scale of theirs."""
_AT_ONCE = 1 << 20

LEVELS = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
"""Quantiles of the normal distribution: the 16 values of NF4 (bitsandbytes' `get_4bit_type`)."""
_BOUNDS = (LEVELS[:-1] + LEVELS[1:]) / np.float32(2)


def dynamic_map() -> NDArray[np.float32]:
    """The 256 values that a scale is quantized to: signed, the more exponent the fewer bits of fraction.

    Source: bitsandbytes' `create_dynamic_map`, after 8-bit approximations (arXiv:1511.04561).
    """
    values: list[float] = [0.0, 1.0]
    for exponent in range(7):
        count = 2**exponent + 1
        # as torch.linspace: a float32 step, from the start in the first half and from the end in the second, fused
        step = np.float64((np.float32(1) - np.float32(0.1)) / np.float32(count - 1))
        places = np.arange(count)
        edges = np.where(places < count // 2, np.float32(0.1) + step * places, 1 - step * places[::-1])
        edges = edges.astype(np.float32)
        means = (edges[:-1] + edges[1:]) / np.float32(2)
        scaled = np.float32(10.0 ** (exponent - 6)) * means
        values += [*map(float, scaled), *map(float, -scaled)]
    return np.sort(np.array(values, np.float32))


def levels(ratio: NDArray[np.float32]) -> NDArray[np.float32]:
    """The level nearest to each ratio of a weight to its block's largest magnitude; of two as near, the lower.

    A search costs several times what is left of the round trip. The upper 16 bits of a ratio tell its level, but for
    the few patterns within which two levels meet: those alone are searched.
    """
    found = _by_pattern().take((ratio.view(np.uint32) >> np.uint32(16)).astype(np.intp))
    meeting = np.flatnonzero(np.isnan(found))
    found.reshape(-1)[meeting] = LEVELS[np.searchsorted(_BOUNDS, ratio.reshape(-1)[meeting])]
    return found


@cache
def _by_pattern() -> NDArray[np.float32]:
    """The level of all ratios whose upper 16 bits are the place in this array, NaN where they have not all the same."""
    patterns = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    least, most = (np.searchsorted(_BOUNDS, ends.view(np.float32)) for ends in (patterns, patterns | 0xFFFF))
    return np.where(least == most, LEVELS[least], np.float32(np.nan))


def mean(absmax: NDArray[np.float32]) -> np.float32:
    """What is taken off all scales before they are quantized, summed in float64.

    bitsandbytes sums in float32, in an order that differs by device: its mean may be some units of the last place away.
    """
    return np.float32(absmax.mean(dtype=np.float64))


def scales(absmax: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest magnitudes of blocks after double quantization, as bitsandbytes dequantizes them; shape kept.

    Each becomes the nearest of the 256 values, as in bitsandbytes' CUDA and default kernels; its CPU kernel takes a
    neighbour for some in a thousand that lie near the middle between two.
    """
    offset = mean(absmax)
    codes = dynamic_map()
    bounds = (codes[:-1] + codes[1:]) / np.float32(2)
    rest = absmax - offset
    padded = np.zeros(-(-len(rest) // NESTED) * NESTED, np.float32)
    padded[: len(rest)] = rest
    groups = padded.reshape(-1, NESTED)
    largest = np.abs(groups).max(axis=1, keepdims=True)
    ratio = np.clip(groups * (np.float32(1) / np.maximum(largest, np.float32(1e-38))), -1, 1)
    found = codes[np.searchsorted(bounds, ratio)] * largest
    return np.asarray(found.reshape(-1)[: len(rest)] + offset, np.float32)


@dataclass(frozen=True)
class Nf4Tensor:
    """A base weight as QLoRA's training sees it; rows are read like `Tensor`'s.

    Attributes:
        tensor: the weight as stored.
        dtype: the compute type of the training, to which dequantized values are rounded: `BF16`, `F16` or `F32`.
    """

    tensor: Tensor
    dtype: Dtype
    _measured: set[int] = field(init=False, repr=False, compare=False, default_factory=set)
    _lock: Any = field(init=False, repr=False, compare=False, default_factory=Lock)

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.tensor.name

    @property
    def file(self) -> Path:
        """The file it lies in."""
        return self.tensor.file

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.tensor.shape

    def ranges(self) -> list[tuple[int, int]]:
        """Ranges of rows for `measure`: whole blocks of weights, whatever the width."""
        rows, columns = self.shape
        step = max(1, _AT_ONCE // columns // BLOCK) * BLOCK
        return [(start, min(start + step, rows)) for start in range(0, rows, step)]

    def measure(self, start: int, stop: int) -> None:
        """Find the largest magnitudes in one of `ranges`; what `rows` finds missing of them it measures itself.

        Without its sign bit a floating-point number's bits order as the number does, and rounding to the compute type
        keeps the order: the largest stored magnitude becomes the largest rounded one.
        """
        stored = self.tensor.stored(start, stop).reshape(-1)
        kind = np.dtype(f"<u{stored.dtype.itemsize}").type
        bits = stored.view(kind) & kind(np.iinfo(kind).max >> 1)
        largest = np.maximum.reduceat(bits, np.arange(0, len(bits), BLOCK))
        values = self._given(widen(largest.view(stored.dtype), self.tensor.dtype))
        first = start * self.shape[1] // BLOCK
        self._absmax[first : first + len(values)] = values
        self._measured.add(start)

    @cached_property
    def _absmax(self) -> NDArray[np.float32]:
        """The largest magnitude of each block, shape (blocks,), as far as they were measured."""
        return np.zeros(-(-self.shape[0] * self.shape[1] // BLOCK), np.float32)

    @cached_property
    def _factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What a block's weights are multiplied by to find their levels, and these to be weights: shape (blocks,)."""
        for start, stop in self.ranges():
            if start not in self._measured:
                self.measure(start, stop)
        inverse = np.reciprocal(np.maximum(self._absmax, np.float32(1e-38)))
        return inverse, scales(self._absmax)

    def _given(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What bitsandbytes is given: stored values in the compute type."""
        return values if self.dtype in ("F32", self.tensor.dtype) else widen(narrow(values, self.dtype), self.dtype)

    def rows(self, which: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """The chosen rows after quantization and back, as float32 values of `dtype`."""
        with self._lock:
            inverse, scale = self._factors
        rows, columns = self.shape
        values = self._given(self.tensor.rows(which))
        if columns % BLOCK == 0:
            shaped = values.reshape(-1, BLOCK)
            inverse, scale = (each.reshape(rows, -1)[which].reshape(-1, 1) for each in (inverse, scale))
        else:
            places = (np.arange(rows)[which][:, None] * columns + np.arange(columns)) // BLOCK
            shaped, inverse, scale = values, inverse[places], scale[places]
        found = levels(shaped * inverse)
        found *= scale
        found = found.reshape(values.shape)
        return found if self.dtype == "F32" else widen(narrow(found, self.dtype), self.dtype)
