"""Which type each tensor gets where a size is given: the least measured damage within the budget. Reads no file.

The damage of a type to a tensor is the share of its output's energy that quantizing its rows and taking them back turns
into error, Σ importance_j (w_ij − ŵ_ij)² / Σ importance_j w_ij². Errors of different tensors hardly meet, so that
damages add up. Not divided by the energy, the error of late layers, whose activations are large, hides that of early
ones: on the embedded model at q4_k_m's size the KL divergence is then ten times as large.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_convert import ggml, graph
from medmind_convert.gguf_file import ALIGNMENT
from medmind_convert.knapsack import Option, choose

WIDE = ("Q2_K", "IQ3_XXS", "Q3_K", "IQ3_S", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16")
"""Types that are tried for rows of whole blocks of 256."""
NARROW = ("Q4_0", "IQ4_NL", "Q5_0", "Q5_1", "Q8_0", "F16")
"""Types that are tried for other rows, which are multiples of 32 in every model that llama.cpp quantizes."""
_WITHOUT_IMATRIX_GARBAGE = {"IQ3_XXS"}
ROWS = 128
"""Rows of a tensor that are quantized to measure a type's damage, evenly spaced; all rows of a smaller one."""

Rows = Callable[[NDArray[np.intp]], NDArray[np.float32]]
"""Reads the chosen rows of a merged tensor."""


@dataclass(frozen=True)
class Measured:
    """What each type does to one tensor.

    Attributes:
        name: the tensor's, in llama.cpp's words.
        shape: rows and columns.
        damage: type -> squared error of the output over all rows, as a share of the output's energy.
    """

    name: str
    shape: tuple[int, int]
    damage: Mapping[str, float]


def measure(name: str, shape: tuple[int, int], rows: Rows, importance: NDArray[np.float32] | None) -> Measured:
    """Quantize rows of a tensor to every type that it can have, take them back, and weigh the error.

    Args:
        name: the tensor's.
        shape: rows and columns.
        rows: reads rows of it.
        importance: shape (columns,), mean square of what enters the tensor, or None: every column counts alike.
    """
    count = min(shape[0], ROWS)
    values = rows(np.linspace(0, shape[0] - 1, count).astype(np.intp))
    weights = np.ones(shape[1]) if importance is None else importance.astype(np.float64)
    energy = float(((values.astype(np.float64) ** 2) @ weights).sum()) or 1.0  # a tensor of zeros has no error either
    damage = {}
    for kind in map(ggml.types().__getitem__, WIDE if shape[1] % 256 == 0 else NARROW):
        if shape[1] % kind.block or (importance is None and kind.name in _WITHOUT_IMATRIX_GARBAGE):
            continue
        if kind.quantized:
            back = graph.dequantize(ggml.quantize(np.ascontiguousarray(values), kind, importance), kind, shape[1])
        else:
            back = values.astype(np.float16).astype(np.float32)
        damage[kind.name] = float((((values - back).astype(np.float64) ** 2) @ weights).sum() / energy)
    return Measured(name, shape, damage)


def padded(size: int) -> int:
    """Bytes that a tensor takes in a file."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Fit:
    """A choice of types.

    Attributes:
        types: tensor -> type.
        bytes: of all chosen tensors, padded as they lie in a file.
        budget: what they might have taken.
        damage: the sum of theirs.
    """

    types: Mapping[str, str]
    bytes: int
    budget: int
    damage: float


def solve(measured: Sequence[Measured], budget: int) -> Fit:
    """The types of least damage that take at most `budget` bytes; the same input gives the same types.

    Args:
        measured: every tensor that may be quantized.
        budget: bytes for all of them.

    Raises:
        MedmindError: the smallest types already take more.
    """
    sizes = [{kind: padded(ggml.types()[kind].size(tensor.shape)) for kind in tensor.damage} for tensor in measured]
    options = [
        [Option(size[kind], each.damage[kind]) for kind in size] for size, each in zip(sizes, measured, strict=True)
    ]
    picks = choose(options, budget)
    if picks is None:
        least = sum(min(size.values()) for size in sizes)
        raise MedmindError(
            f"{human_bytes(budget)} for the weights are too few: the smallest types take {human_bytes(least)}",
            "allow more, or take a smaller base",
        )
    types = {tensor.name: list(size)[pick] for tensor, size, pick in zip(measured, sizes, picks, strict=True)}
    taken = [each[pick] for each, pick in zip(options, picks, strict=True)]
    return Fit(types, sum(option.size for option in taken), budget, sum(option.cost for option in taken))
