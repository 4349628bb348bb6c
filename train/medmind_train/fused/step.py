"""The fused step: a PEFT model's loss and adapter gradients for one batch, without autograd. Knows all its parts.

Batches of the one shape it was made for run as CUDA graphs: one of all layers forward, one of the head for each number
of chunks, one of all layers backward; a set for each power of two of documents in a batch. They share one memory pool
and run in the order they were captured in, so that their temporaries lie over each other. Anything else runs as it
is written.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from medmind_train.batches import Batch
from medmind_train.fused import attention, kernels
from medmind_train.fused.adapters import Adapters
from medmind_train.fused.attention import Documents
from medmind_train.fused.flat import Flat
from medmind_train.fused.head import Head, Targets
from medmind_train.fused.lanes import Arrival, Lane
from medmind_train.fused.layer import Layer, Positions
from medmind_train.fused.lifetimes import CHUNK
from medmind_train.fused.parking import Parking
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import Shape
from medmind_train.fused.stream import LayerStream
from medmind_train.loss import Scores


@dataclass(frozen=True)
class _Inputs:
    """A batch as the step reads it, on the device.

    Attributes:
        ids: `[tokens]` int64.
        scale: 0-d fp32, 1 / the supervised tokens of the step.
    """

    ids: torch.Tensor
    positions: Positions
    targets: Targets
    scale: torch.Tensor


@dataclass
class _Graphs:
    """The captured step for one number of documents."""

    inputs: _Inputs
    forward: Any
    heads: list[Any]
    backward: Any


class FusedStep:
    """Loss and gradients of one model.

    Args:
        model: a PEFT model as `loading.load` and `model.add_adapter` make it; its adapters move into flat buffers.
        placement: where things lie; what it says of weights must be how the model was loaded.
        batch, length: the shape that graphs are made for.
        dtype: the compute type.
        graphs: capture graphs; only on a card, and where its attention can be captured.
        stream: the layers whose weights wait on the host.

    Raises:
        Unsupported: a model, an adapter or a quantization that only the reference path can train.
    """

    def __init__(
        self,
        model: Any,
        placement: Placement,
        *,
        batch: int,
        length: int,
        dtype: torch.dtype,
        graphs: bool = True,
        stream: LayerStream | None = None,
    ) -> None:
        causal = model.get_base_model()
        decoder = causal.get_decoder()
        self.shape = Shape.of(causal.config.to_dict())
        self.adapters = Adapters(model, self.shape)
        self.placement = placement
        self.tokens = batch * length
        self.length = length
        self.device = self.adapters.a.device
        self._dtype = dtype
        self._rotary = decoder.rotary_emb
        self._embedding = decoder.embed_tokens.weight
        self._head = Head(decoder.norm.weight, causal.get_output_embeddings().weight, self.shape.eps)
        self._layers = [
            Layer(
                self.shape,
                module.input_layernorm.weight,
                module.post_attention_layernorm.weight,
                projections["qkv"],
                projections["o"],
                projections["gate_up"],
                projections["down"],
            )
            for module, projections in zip(decoder.layers, self.adapters.layers, strict=True)
        ]
        self._width = max(layer.gradient_width for layer in self._layers)
        self._parking: dict[int, Parking] = {}
        self._stream = stream
        self._lane = Lane(self.device)
        # By layer, within one pass: what an earlier pass, or transformers, left in a slot does not count.
        self._arrivals: dict[int, Arrival] = {}
        captured = graphs and self.device.type == "cuda" and attention.capturable(dtype)
        self._graphs: dict[int, _Graphs] | None = {} if captured else None
        self._pool: Any = None
        self._share = torch.zeros((), device=self.device)
        self._gradient: torch.Tensor | None = None

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """LoRA's A of all layers as one parameter, and its B as another; their `.grad` is always there."""
        return self.adapters.named_parameters()

    @property
    def pinned(self) -> int:
        """Bytes of host memory that copies go to and come from, as far as there have been batches."""
        host = [one for one in (self._embedding, self._head.weight) if one.device.type == "cpu"]
        streamed = self._stream.host if self._stream else []
        parked = sum(parking.pinned for parking in self._parking.values())
        return sum(one.nbytes for one in (*host, *streamed)) + parked

    def zero_gradients(self) -> None:
        """Set all gradients to 0, where they lie."""
        self.adapters.zero_gradients()

    @torch.no_grad()
    def add_gradient(self, batch: Batch, divisor: float) -> torch.Tensor:
        """Add the gradient of a batch's summed loss / `divisor` to the adapters'.

        Args:
            batch: on the host.
            divisor: supervised tokens of the whole step.

        Returns:
            The batch's share of the loss, 0-d fp32 on the device: nothing has waited for it.
        """
        read = Flat(batch)
        if self._graphs is not None and batch.ids.shape == (self.tokens // self.length, self.length):
            self._replay(read, divisor)
        else:
            self._arrivals.clear()
            self._run(self._inputs(read, divisor))
        return self._share.clone()

    @torch.no_grad()
    def scores(self, batch: Batch, *, likeliest: bool = False) -> Scores:
        """Score the supervised tokens of a batch of any shape; see `loss.answer_scores`."""
        self._release()
        read = Flat(batch)
        inputs = self._inputs(read, 1.0)
        self._arrivals.clear()
        x = self._embedded(inputs.ids)
        for index, layer in enumerate(self._layers):
            self._have_weights(index, index + 1)
            x, _ = layer.forward(x, inputs.positions)
        nll = torch.empty(len(inputs.targets.rows), device=self.device)
        first = torch.empty(len(nll), dtype=torch.bool, device=self.device) if likeliest else None
        self._head.forward(x, inputs.targets, nll, first=first)
        owners = batch.owners[:, 1:][batch.supervised[:, 1:]].to(self.device)
        return Scores(nll[: read.count], owners, first[: read.count] if first is not None else None)

    def shrink(self, rows: int) -> None:
        """Make graphs and buffers for batches of so many rows, in place of those there are."""
        self._forget()
        self.tokens = rows * self.length

    def leaner(self) -> bool:
        """Keep every layer's states on the host from here on; false where that is so already."""
        lean = replace(self.placement, kept=(Keep.HOST,) * len(self.placement.kept))
        if lean == self.placement:
            return False
        self._forget()
        self.placement = lean
        return True

    def _run(self, inputs: _Inputs) -> None:
        x = self._forward(inputs)
        self._loss(x, inputs)
        del x
        self._backward(inputs)

    def _forward(self, inputs: _Inputs) -> torch.Tensor:
        parking = self._parked(len(inputs.ids))
        x = self._embedded(inputs.ids)
        for index, layer in enumerate(self._layers):
            self._have_weights(index, index + 1)
            x, kept = layer.forward(x, inputs.positions, keep_all=parking.keep[index] is Keep.ALL)
            parking.put(index, kept)
            del kept
        parking.finish()
        return x

    def _loss(self, x: torch.Tensor, inputs: _Inputs) -> None:
        nll = torch.empty(len(inputs.targets.rows), device=self.device)
        self._head.forward(x, inputs.targets, nll, scale=inputs.scale, gradient=self._gradient_of(len(x)))
        torch.mul(nll.sum(), inputs.scale, out=self._share)

    def _backward(self, inputs: _Inputs) -> None:
        parking = self._parked(len(inputs.ids))
        gradient = self._gradient_of(len(inputs.ids))[:-1]
        last = len(self._layers) - 1
        parking.call_mid(last)
        for index in range(last, -1, -1):
            layer = self._layers[index]
            self._have_weights(index, index - 1)
            x_mid, kept = parking.take_mid(index)
            parking.call_rest(index)
            layer.mlp_backward(gradient, x_mid, kept)
            parking.call_mid(index - 1)
            kept = parking.take_rest(index, x_mid)
            del x_mid
            layer.attention_backward(gradient, kept, inputs.positions)
            del kept

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.empty(len(ids), self.shape.hidden, dtype=self._dtype, device=self.device)
        kernels.embed(ids, self._embedding, x)
        return x

    def _have_weights(self, index: int, following: int) -> None:
        """Layer `index`'s weights are on the card from here on, and those of the layer `following` on their way."""
        streamed = self.placement.streamed
        if not streamed:
            return
        if index < streamed:
            if index not in self._arrivals:
                self._fetch(index)
            self._arrivals[index].wait()
        if 0 <= following < streamed and following not in self._arrivals:
            self._fetch(following)

    def _fetch(self, index: int) -> None:
        stream = self._stream
        assert stream
        slots = len(stream.card)
        for other in [one for one in self._arrivals if one % slots == index % slots]:
            del self._arrivals[other]
        self._arrivals[index] = self._lane.run(lambda: stream.fetch(index))

    def _parked(self, tokens: int) -> Parking:
        """Host buffers for batches of so many tokens; those of the usual shape stay."""
        if tokens not in self._parking:
            for other in [one for one in self._parking if one != self.tokens]:
                del self._parking[other]
            self._parking[tokens] = Parking(self.shape, self.placement.kept, tokens, self._dtype, self.device)
        return self._parking[tokens]

    def _gradient_of(self, tokens: int) -> torch.Tensor:
        """The residual stream's gradient, `[tokens + 1, width]`: the last row takes what belongs nowhere."""
        if self._gradient is None or len(self._gradient) < tokens + 1:
            self._gradient = torch.zeros(
                max(tokens, self.tokens) + 1, self._width, dtype=self._dtype, device=self.device
            )
        return self._gradient[: tokens + 1]

    def _inputs(self, read: Flat, divisor: float) -> _Inputs:
        """Everything on the device, in new tensors."""
        cos, sin = self._turns(read)
        return _Inputs(
            self._sent(read.ids),
            Positions(cos, sin, Documents(self._sent(read.bounds), read.longest)),
            Targets(self._sent(read.rows), self._sent(read.targets)),
            torch.tensor(1 / divisor, device=self.device),
        )

    def _turns(self, read: Flat) -> tuple[torch.Tensor, torch.Tensor]:
        like = torch.empty(0, dtype=self._dtype, device=self.device)
        cos, sin = self._rotary(like, self._sent(read.places)[None])
        return cos[0], sin[0]

    def _sent(self, array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def _replay(self, read: Flat, divisor: float) -> None:
        assert self._graphs is not None
        if read.documents not in self._graphs:
            self._graphs[read.documents] = self._capture(read)
        graphs = self._graphs[read.documents]
        static = graphs.inputs
        static.ids.copy_(self._sent(read.ids))
        for target, source in zip((static.positions.cos, static.positions.sin), self._turns(read), strict=True):
            target.copy_(source)
        static.positions.documents.bounds.copy_(self._sent(read.bounds))
        static.targets.rows[: len(read.rows)].copy_(self._sent(read.rows))
        static.targets.tokens[: len(read.rows)].copy_(self._sent(read.targets))
        static.scale.fill_(1 / divisor)
        graphs.forward.replay()
        graphs.heads[len(read.rows) // CHUNK - 1].replay()
        graphs.backward.replay()

    def _release(self) -> None:
        """Give the graphs' memory back, which nothing else can use: what comes next may need it."""
        if self._graphs:
            torch.cuda.synchronize()
            self._graphs.clear()
            self._pool = None
            torch.cuda.empty_cache()

    def _forget(self) -> None:
        """Drop all that was made for one shape and placement; a capture may have been broken off before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        if self._graphs is not None:
            self._graphs.clear()
        self._pool = None
        self._parking.clear()
        self._gradient = None
        self._arrivals.clear()

    def _capture(self, read: Flat) -> _Graphs:
        chunks = -(-self.tokens // CHUNK)
        inputs = self._inputs(read.with_places(chunks * CHUNK), 1.0)
        inputs = _Inputs(inputs.ids, inputs.positions, inputs.targets, torch.zeros((), device=self.device))
        if self._pool is None:
            self._rehearse(inputs)
            self._pool = torch.cuda.graph_pool_handle()
        self._arrivals.clear()
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with self._capturing(forward):
            x = self._forward(inputs)
        # Another graph cannot wait for this one's copies, and need not: it runs after all of it.
        self._arrivals = {index: Arrival(None) for index in self._arrivals}
        heads = []
        for count in range(1, chunks + 1):
            part = slice(0, count * CHUNK)
            targets = Targets(inputs.targets.rows[part], inputs.targets.tokens[part])
            heads.append(torch.cuda.CUDAGraph())
            with self._capturing(heads[-1]):
                self._loss(x, _Inputs(inputs.ids, inputs.positions, targets, inputs.scale))
        del x
        with self._capturing(backward):
            self._backward(inputs)
        self._arrivals.clear()
        return _Graphs(inputs, forward, heads, backward)

    def _rehearse(self, inputs: _Inputs) -> None:
        """Everything once as it is, losses times 0: Triton compiles, cuBLAS chooses, and no gradient changes.

        Not again for the graphs of another number of documents: its memory would lie beside that of the graphs.
        """
        make: Any = torch.cuda.Stream  # it has no annotations
        side = make()
        side.wait_stream(torch.cuda.current_stream())
        self._arrivals.clear()
        with torch.cuda.stream(side):
            self._run(inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def _capturing(self, graph: Any) -> Any:
        # Other threads may go on talking to the card (a progress display reads its memory).
        return torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
