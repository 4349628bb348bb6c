"""From a size to the types of a source's tensors: measures each, lets `fit.py` choose, and lays the file out.

Knows what a file holds beside its weights, which the budget pays for too. Writes nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from medmind import console
from medmind_convert import fit, one_pass, type_choice
from medmind_convert.conversion import Conversion
from medmind_convert.fit import Measured
from medmind_convert.imatrix import Weighting
from medmind_convert.merge import Merged
from medmind_convert.one_pass import Step
from medmind_convert.quants import QUANTS, Quant


@dataclass(frozen=True)
class Target:
    """What was asked for; one of the two sizes.

    Attributes:
        name: in the file's name, before `.gguf`.
        bytes: of the whole file, over all its shards.
        bits: per weight, metadata left out.
    """

    name: str
    bytes: int | None = None
    bits: float | None = None


@dataclass(frozen=True)
class Fitted:
    """A file type made for a size.

    Attributes:
        quant: its name, and the number of the file type whose tensors most of the weights are.
        types: tensor -> type, in the file's order.
        budget: bytes that were allowed.
        left: bytes of them that no tensor's next type fits into.
    """

    quant: Quant
    types: Mapping[str, str]
    budget: int
    left: int


def choose(
    conversion: Conversion,
    target: Target,
    importance: one_pass.Importance,
    *,
    threads: int,
    provenance: bool = True,
    split_max: int | None = None,
    weighting: Weighting | None = None,
) -> Fitted:
    """The types of least damage with which the file is at most as large as the target; deterministic.

    Args:
        conversion: the source.
        target: the size.
        importance: of the columns of each tensor.
        threads: that measure.
        provenance, split_max, weighting: how the file will be written, which decides what it holds beside the weights.

    Raises:
        MedmindError: the smallest types already take more, or a tensor holds NaN or infinity.
    """
    shapes = {p.target: p.shape for p in conversion.architecture.placements}
    fixed = {name: "F32" for name, shape in shapes.items() if not type_choice.allows_quantization(_shaped(name, shape))}
    measured = measure(conversion, importance, threads)
    if target.bytes is not None:
        budget = target.bytes
    else:
        budget = int((target.bits or 0.0) * conversion.architecture.parameters / 8)
    room = budget
    while True:  # what lies beside the weights is known when the file is laid out; each turn leaves less room
        solved = fit.solve(measured, room)
        types = {name: {**fixed, **solved.types}[name] for name in type_choice.order(shapes)}
        quant = _quant(target, types, shapes)
        layouts = conversion.layouts(
            quant.ftype, types, provenance=provenance, split_max=split_max, weighting=weighting
        )
        if target.bytes is not None:
            size = sum(layout.size for layout in layouts)
        else:
            size = sum(slot.size for layout in layouts for slot in layout.slots)
        if size <= budget:
            return Fitted(quant, types, budget, budget - size)
        room = max(0, budget - (size - solved.bytes))


def measure(conversion: Conversion, importance: one_pass.Importance, threads: int) -> list[Measured]:
    """The damage of every type to every matrix of a source, in the file's order."""
    shapes = {p.target: p.shape for p in conversion.architecture.placements}
    matrices = [name for name, shape in shapes.items() if type_choice.allows_quantization(_shaped(name, shape))]

    def one(step: Step) -> Measured:
        name, shape = step.placement.target, (step.placement.shape[0], step.placement.shape[1])
        merged = Merged(step.placement, step.tensor, step.delta)
        return fit.measure(name, shape, merged.sample, importance(name, shape[1]))

    wanted = (step for step in conversion.steps() if step.placement.target in set(matrices))
    found = []
    with (
        console.progress("measuring what types cost", len(matrices), "tensors") as advance,
        ThreadPoolExecutor(threads, thread_name_prefix="measure") as pool,
    ):
        try:
            for each in pool.map(one, wanted):
                found.append(each)
                advance(1)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return found


def _shaped(name: str, shape: Sequence[int]) -> type_choice.Shaped:
    return type_choice.Shaped(name, tuple(shape))


def _quant(target: Target, types: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> Quant:
    weights: Counter[str] = Counter()
    for name, kind in types.items():
        weights[kind] += int(np.prod(shapes[name]))
    (most, _), *_ = weights.most_common(1)
    like = next(name for name, kind in type_choice.DEFAULTS.items() if kind == most)
    return Quant(target.name, QUANTS[like].ftype, 0.0, about="types chosen tensor by tensor for this size")
