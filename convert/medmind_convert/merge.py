"""Base tensor + adapter change = merged tensor, in llama.cpp's row order, a block of rows at a time.

Knows rounding; knows neither names nor files.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medmind.errors import MedmindError
from medmind_convert.adapter import Delta
from medmind_convert.architecture import Placement
from medmind_convert.weights import Dtype, Tensor, narrow, widen

BLOCK = 1 << 20
"""Values in work at a time: 4 MiB as float32, and a few times that while they are rounded."""


def merged_blocks(
    placement: Placement, tensor: Tensor, delta: Delta | None, dtype: Dtype
) -> Iterator[NDArray[np.generic]]:
    """The merged tensor as `dtype` is stored, in consecutive blocks of target rows.

    W + scale · (B @ A) is computed in float32 and rounded once to the base's own type, then exactly or by one more
    rounding to `dtype`. PEFT's `merge_and_unload` does the same where the adapter is float32, as PEFT keeps it: its
    in-place addition promotes a 16-bit base to float32 and rounds once. Only the order of the sums inside the product
    may differ, so that a value is now and then one step of the base's type away. PEFT's `safe_merge` rounds the change
    first, and so twice in all.

    With DoRA (arXiv:2402.09353) each row of that sum is scaled to its trained magnitude m before the rounding:
    m · (W + scale · B @ A) / ‖W + scale · B @ A‖, norms over a row, in float32 and without an epsilon, as PEFT's
    `DoraLinearVariant.merge_unsafe` does (tuners/lora/variants.py). W is the 16-bit base, whereas QLoRA trained m
    beside the NF4 one: the merged rows have the lengths that training gave them, and the 16-bit base's directions.

    Raises:
        MedmindError: NaN or infinity in the base or after the merge, or a value beyond the range of `dtype`.
    """
    order = placement.order()
    columns = placement.shape[1] if placement.is_matrix else 1
    step = max(1, BLOCK // columns)
    factors = delta.factors() if delta else None
    for start in range(0, len(order), step):
        which: NDArray[np.intp] | slice = order[start : start + step]
        if not placement.heads:  # rows in file order: a slice is read straight from the map
            which = slice(start, min(start + step, len(order)))
        values = tensor.rows(which)
        if factors and delta:
            a, b, magnitude = factors
            values += (b[which] @ a) * np.float32(delta.scale)
            if magnitude is not None:
                values *= _stretch(values, magnitude[which])
            if tensor.dtype != "F32":
                values = widen(narrow(values, tensor.dtype), tensor.dtype)
        if not np.isfinite(values).all():
            _raise_not_finite(tensor, delta, which)
        stored = narrow(values, dtype)
        if dtype == "F16" and not np.isfinite(stored).all():
            raise MedmindError(f"{tensor.name} holds values beyond f16's range of ±65504", "take bf16")
        yield stored


def _stretch(values: NDArray[np.float32], magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """What brings each row to its magnitude, shape (rows, 1); NaN or infinity for a row of zeros."""
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor: NDArray[np.float32] = (magnitude / norms.astype(np.float32))[:, None]
    return factor


def _raise_not_finite(tensor: Tensor, delta: Delta | None, which: NDArray[np.intp] | slice) -> None:
    if delta is not None and np.isfinite(tensor.rows(which)).all():
        raise MedmindError(f"{tensor.name} overflows when the adapter is merged into it", "train it again")
    raise MedmindError(
        f"{tensor.name} in {tensor.file} holds NaN or infinity", "download it again, or take another base"
    )
