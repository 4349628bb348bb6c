"""Base tensor + adapter change = merged tensor, in llama.cpp's row order, a block of rows at a time.

Knows rounding; knows neither names nor files.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medmind.errors import MedmindError
from medmind_convert import ggml
from medmind_convert.adapter import Delta
from medmind_convert.architecture import Placement
from medmind_convert.nf4 import Nf4Tensor
from medmind_convert.weights import Dtype, Tensor, narrow, widen

BLOCK = 1 << 19
"""Values in work at a time: 2 MiB as float32, and a few times that while they are rounded."""


class Merged:
    """One tensor with the adapter's change, read block by block, from several threads if one likes.

    W + scale · (B @ A) is computed in float32 and rounded once to the base's own type. PEFT's `merge_and_unload` does
    the same where the adapter is float32, as PEFT keeps it: its in-place addition promotes a 16-bit base to float32 and
    rounds once. The product sums in torch's order (`ggml.outer`), so that the bits are PEFT's. PEFT's `safe_merge`
    rounds the change first, and so twice in all.

    With DoRA (arXiv:2402.09353) each row of that sum is scaled to its trained magnitude m before the rounding:
    m · (W + scale · B @ A) / ‖W + scale · B @ A‖, norms over a row, in float32 and without an epsilon, as PEFT's
    `DoraLinearVariant.merge_unsafe` does (tuners/lora/variants.py). Where W is the 16-bit base, whereas QLoRA trained m
    beside the NF4 one, the merged rows have the lengths that training gave them, and the 16-bit base's directions.

    Args:
        placement: the tensor's shape and row order.
        tensor: of the base, as stored or as NF4 leaves it.
        delta: the adapter's change, or None.

    Raises:
        MedmindError: NaN or infinity in the adapter's own tensors.
    """

    def __init__(self, placement: Placement, tensor: Tensor | Nf4Tensor, delta: Delta | None) -> None:
        self.placement = placement
        self.tensor = tensor
        self.delta = delta
        self._order = placement.order() if placement.heads else None
        self._factors = delta.factors() if delta else None

    def blocks(self) -> list[tuple[int, int]]:
        """Ranges of target rows that hold about `BLOCK` values each; those of reordered rows hold whole heads."""
        length = self.placement.shape[0]
        step = max(1, BLOCK // (self.placement.shape[1] if self.placement.is_matrix else 1))
        if self.placement.heads:
            head = length // self.placement.heads
            step = max(head, step // head * head)
        return [(start, min(start + step, length)) for start in range(0, length, step)]

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Target rows (or elements) as float32, each a value of the base's own type.

        Raises:
            MedmindError: NaN or infinity in the base or after the merge.
        """
        which: NDArray[np.intp] | slice = slice(start, stop) if self._order is None else self._order[start:stop]
        return self._changed(self.tensor.rows(which), which)

    def sample(self, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
        """Single target rows, each read by itself, so that what lies between them is not; otherwise as `rows`."""
        which = chosen if self._order is None else self._order[chosen]
        return self._changed(np.concatenate([self.tensor.rows(slice(row, row + 1)) for row in which]), which)

    def _changed(self, values: NDArray[np.float32], which: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        if self._factors and self.delta:
            a, b, magnitude = self._factors
            change = ggml.outer(a, b[which])
            change *= np.float32(self.delta.scale)
            values += change
            if magnitude is not None:
                values *= _stretch(values, magnitude[which])
            if self.tensor.dtype != "F32":
                values = widen(narrow(values, self.tensor.dtype), self.tensor.dtype)
        if not np.isfinite(values).all():
            _raise_not_finite(self.tensor, self.delta, which)
        return values


def store(values: NDArray[np.float32], dtype: Dtype, tensor: Tensor | Nf4Tensor) -> NDArray[np.generic]:
    """Merged values as `dtype` is stored.

    Raises:
        MedmindError: a value is beyond the range of F16; the tensor is named.
    """
    stored = narrow(values, dtype)
    if dtype == "F16" and not np.isfinite(stored).all():
        raise MedmindError(f"{tensor.name} holds values beyond f16's range of ±65504", "take bf16")
    return stored


def merged_blocks(
    placement: Placement, tensor: Tensor, delta: Delta | None, dtype: Dtype
) -> Iterator[NDArray[np.generic]]:
    """The merged tensor as `dtype` is stored, in consecutive blocks of target rows; see `Merged` and `store`."""
    merged = Merged(placement, tensor, delta)
    for start, stop in merged.blocks():
        yield store(merged.rows(start, stop), dtype, tensor)


def _stretch(values: NDArray[np.float32], magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """What brings each row to its magnitude, shape (rows, 1); NaN or infinity for a row of zeros."""
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor: NDArray[np.float32] = (magnitude / norms.astype(np.float32))[:, None]
    return factor


def _raise_not_finite(tensor: Tensor | Nf4Tensor, delta: Delta | None, which: NDArray[np.intp] | slice) -> None:
    if delta is not None and np.isfinite(tensor.rows(which)).all():
        raise MedmindError(f"{tensor.name} overflows when the adapter is merged into it", "train it again")
    raise MedmindError(
        f"{tensor.name} in {tensor.file} holds NaN or infinity", "download it again, or take another base"
    )
