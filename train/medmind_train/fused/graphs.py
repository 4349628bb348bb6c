"""A decoder's phases as CUDA graphs: captured at the first batch of a kind, replayed from then on. Knows no layer.

One graph of all layers forward, one of the head for each number of chunks, one of all layers backward; a set for each
power of two of documents in a batch. They share one memory pool and run in the order they were captured in, so that
their temporaries lie over each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from medmind_train.fused.decoder import Decoder, Inputs
from medmind_train.fused.flat import Flat
from medmind_train.fused.head import Targets
from medmind_train.fused.lifetimes import CHUNK


@dataclass
class _Captured:
    """The phases for one number of documents, and the inputs they read."""

    inputs: Inputs
    forward: Any
    heads: list[Any]
    backward: Any


class Graphs:
    """Runs a decoder's phases on batches of one number of tokens.

    Args:
        send: makes inputs on the card of a batch on the host, and the divisor of its loss.
    """

    def __init__(self, decoder: Decoder, tokens: int, send: Callable[[Flat, float], Inputs]) -> None:
        self._decoder = decoder
        self._send = send
        self._chunks = -(-tokens // CHUNK)
        self._captured: dict[int, _Captured] = {}
        self._pool: Any = None

    def run(self, read: Flat, divisor: float) -> None:
        """Forward, loss and backward of a batch."""
        if read.documents not in self._captured:
            self._captured[read.documents] = self._capture(read)
        captured = self._captured[read.documents]
        self._fill(captured.inputs, self._send(read, divisor))
        captured.forward.replay()
        captured.heads[len(read.rows) // CHUNK - 1].replay()
        captured.backward.replay()

    def release(self) -> None:
        """Give the graphs' memory back, which nothing else can use: what comes next may need it."""
        if self._captured:
            torch.cuda.synchronize()
            self._captured.clear()
            self._pool = None
            torch.cuda.empty_cache()

    @staticmethod
    def _fill(static: Inputs, given: Inputs) -> None:
        count = len(given.targets.rows)
        for target, source in (
            (static.ids, given.ids),
            (static.positions.cos, given.positions.cos),
            (static.positions.sin, given.positions.sin),
            (static.positions.documents.bounds, given.positions.documents.bounds),
            (static.targets.rows[:count], given.targets.rows),
            (static.targets.tokens[:count], given.targets.tokens),
            (static.scale, given.scale),
        ):
            target.copy_(source)

    def _capture(self, read: Flat) -> _Captured:
        decoder = self._decoder
        inputs = self._send(read.with_places(self._chunks * CHUNK), 1.0)
        inputs = replace(inputs, scale=torch.zeros_like(inputs.scale))
        if self._pool is None:
            self._rehearse(inputs)
            self._pool = torch.cuda.graph_pool_handle()
        decoder.begin()
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with self._capturing(forward):
            decoder.forward(inputs)
        decoder.part()
        heads = []
        for count in range(1, self._chunks + 1):
            part = slice(0, count * CHUNK)
            targets = Targets(inputs.targets.rows[part], inputs.targets.tokens[part])
            heads.append(torch.cuda.CUDAGraph())
            with self._capturing(heads[-1]):
                decoder.loss(replace(inputs, targets=targets))
        with self._capturing(backward):
            decoder.backward(inputs)
        decoder.begin()
        return _Captured(inputs, forward, heads, backward)

    def _rehearse(self, inputs: Inputs) -> None:
        """Everything once as it is, losses times 0: Triton compiles, cuBLAS chooses, and no gradient changes.

        Not again for the graphs of another number of documents: its memory would lie beside that of the graphs.
        """
        make: Any = torch.cuda.Stream  # it has no annotations
        side = make()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._decoder.run(inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def _capturing(self, graph: Any) -> Any:
        # Other threads may go on talking to the card (a progress display reads its memory).
        return torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
