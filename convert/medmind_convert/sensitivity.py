"""How much a model's answers suffer from an error in each weight: one weight at a time is quantized in memory.

The KL divergence of the next-token distributions from the unquantized model's, over text of the domain that is held out
of nothing. Knows a GGUF and tokens; chooses no type.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmind import console
from medmind.errors import MedmindError
from medmind_convert import graph
from medmind_convert.model_run import ModelRun, Product

Chunks = Sequence[Sequence[int]]


class Probe:
    """An F16 GGUF in memory whose weights can be exchanged, and its own distributions over some chunks of tokens.

    Attributes:
        weights: name -> address of each weight that a product of the graph takes.
    """

    def __init__(self, run: ModelRun, weights: Mapping[str, c_void_p], chunks: Chunks) -> None:
        self.weights = weights
        self._run = run
        self._chunks = chunks
        self._reference = [self._log_probabilities(chunk) for chunk in chunks]

    def divergence(
        self, exchanged: Mapping[str, NDArray[np.float16]], original: Mapping[str, NDArray[np.float16]]
    ) -> float:
        """Mean KL divergence in nats with some weights exchanged; they are put back.

        Args:
            exchanged: name -> values.
            original: name -> values to put back.
        """
        try:
            for name, values in exchanged.items():
                graph.write(self.weights[name], values)
            total = count = 0.0
            for chunk, reference in zip(self._chunks, self._reference, strict=True):
                found = self._log_probabilities(chunk)
                total += float((np.exp(reference, dtype=np.float64) * (reference - found)).sum())
                count += len(found)
            return total / count
        finally:
            for name in exchanged:
                graph.write(self.weights[name], original[name])

    def _log_probabilities(self, chunk: Sequence[int]) -> NDArray[np.float32]:
        logits = self._run.run(chunk, logits=True)
        if logits is None:
            raise ValueError("no logits")
        shifted = logits.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        found: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return found.astype(np.float32)


@contextmanager
def probe(model: Path, chunks: Callable[[ModelRun], Chunks], *, length: int, threads: int) -> Iterator[Probe]:
    """Load an F16 GGUF and compute its own distributions.

    Args:
        model: the GGUF.
        chunks: makes the chunks of tokens.
        length: tokens of one.
        threads: compute threads.
    """
    weights: dict[str, c_void_p] = {}

    def watch(name: str, product: Product) -> None:
        weights[name] = product.weight

    with ModelRun(model, length=length, threads=threads, watch=watch, in_memory=True) as run:
        todo = chunks(run)
        run.run(todo[0])
        if not weights:
            raise MedmindError(f"no weight of {model} was seen at work", "please report it with the model's name")
        run.unwatch()
        yield Probe(run, weights, todo)


def measure(
    found: Probe,
    original: Mapping[str, NDArray[np.float16]],
    quantized: Callable[[str], NDArray[np.float16]],
    damage: Mapping[str, float],
) -> dict[str, float]:
    """KL divergence per unit of a weight's own damage, for each weight.

    Args:
        found: the model.
        original: name -> values.
        quantized: gives a weight as some type of few bits leaves it.
        damage: name -> the error of that, as `fit.measure` counts it.
    """
    rates = {}
    with console.progress("measuring damage", len(original), "tensors") as advance:
        for name in original:
            suffered = max(found.divergence({name: quantized(name)}, original), 0.0)
            rates[name] = suffered / damage[name] if damage[name] else 0.0
            advance(1)
    return rates
