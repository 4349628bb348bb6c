"""All layers and the head, one batch at a time: forward, loss, backward, each as it is written. Knows where things lie.

The three phases share nothing but what lives in fixed places, so that each can be a CUDA graph of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medmind_train.fused import kernels
from medmind_train.fused.head import Head, Targets
from medmind_train.fused.lanes import Arrival, Lane
from medmind_train.fused.layer import Layer, Positions
from medmind_train.fused.parking import Parking
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.projection import Projection
from medmind_train.fused.shape import Shape
from medmind_train.fused.stream import LayerStream


@dataclass(frozen=True)
class Inputs:
    """A batch as the phases read it, on the device.

    Attributes:
        ids: `[tokens]` int64.
        scale: 0-d fp32, 1 / the supervised tokens of the step.
    """

    ids: torch.Tensor
    positions: Positions
    targets: Targets
    scale: torch.Tensor


class Decoder:
    """The model's arithmetic.

    Args:
        causal: a transformers model as `loading.load` makes it.
        projections: the linear layers of each of its layers, by their group.
        placement: where things lie.
        tokens: of the usual batch; another may come.
        dtype: the compute type.
        stream: the layers whose weights wait on the host.

    Attributes:
        share: 0-d fp32, the loss of the last batch times its scale.
        placement, tokens: as they are now, see `reshape`.
    """

    def __init__(
        self,
        causal: Any,
        projections: Sequence[Mapping[str, Projection]],
        placement: Placement,
        *,
        shape: Shape,
        tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        stream: LayerStream | None,
    ) -> None:
        decoder = causal.get_decoder()
        self.share = torch.zeros((), device=device)
        self._shape = shape
        self.placement = placement
        self.tokens = tokens
        self._dtype = dtype
        self._device = device
        self._embedding = decoder.embed_tokens.weight
        self._head = Head(decoder.norm.weight, causal.get_output_embeddings().weight, shape.eps)
        self._layers = [
            Layer(
                shape,
                module.input_layernorm.weight,
                module.post_attention_layernorm.weight,
                of["qkv"],
                of["o"],
                of["gate_up"],
                of["down"],
            )
            for module, of in zip(decoder.layers, projections, strict=True)
        ]
        self._width = max(layer.gradient_width for layer in self._layers)
        self._parking: dict[int, Parking] = {}
        self._stream = stream
        self._lane = Lane(device)
        # By layer, within one pass: what an earlier pass, or transformers, left in a slot does not count.
        self._arrivals: dict[int, Arrival] = {}
        self._residual: torch.Tensor | None = None

    @property
    def pinned(self) -> int:
        """Bytes of host memory that copies go to and come from, as far as there have been batches."""
        host = [one for one in (self._embedding, self._head.weight) if one.device.type == "cpu"]
        streamed = self._stream.host if self._stream else []
        parked = sum(parking.pinned for parking in self._parking.values())
        return sum(one.nbytes for one in (*host, *streamed)) + parked

    def reshape(self, placement: Placement, tokens: int) -> None:
        """Drop what was made for one usual batch and placement, and be made for another; the weights stay."""
        self.placement, self.tokens = placement, tokens
        self._parking.clear()
        self._residual = None
        self.begin()

    def run(self, inputs: Inputs) -> None:
        """All three phases."""
        self.begin()
        self.forward(inputs)
        self.loss(inputs)
        self.backward(inputs)

    def begin(self) -> None:
        """A new pass: no streamed layer is there or on its way."""
        self._arrivals.clear()

    def part(self) -> None:
        """What was on its way has arrived: a graph cannot wait for another's copies, and runs after all of it."""
        self._arrivals = {index: Arrival(None) for index in self._arrivals}

    def forward(self, inputs: Inputs) -> None:
        """All layers; what the last one gives lies where the residual stream's gradient will, for `loss` to read."""
        parking = self._parked(len(inputs.ids))
        x = self._embedded(inputs.ids)
        end = self._residual_of(len(x))[:-1, : self._shape.hidden]
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            self._have_weights(index, index + 1)
            keep_all = parking.keep[index] is Keep.ALL
            x, kept = layer.forward(x, inputs.positions, keep_all=keep_all, out=end if index == last else None)
            parking.put(index, kept)
            del kept
        parking.finish()

    def loss(self, inputs: Inputs) -> None:
        """The head: `share`, and the gradient at the last layer's output."""
        nll = torch.empty(len(inputs.targets.rows), device=self._device)
        self._head.train(self._residual_of(len(inputs.ids)), inputs.targets, nll, inputs.scale)
        torch.mul(nll.sum(), inputs.scale, out=self.share)

    def backward(self, inputs: Inputs) -> None:
        """All layers the other way; the adapters' gradients are added."""
        parking = self._parked(len(inputs.ids))
        gradient = self._residual_of(len(inputs.ids))[:-1]
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

    def scores(self, inputs: Inputs, *, likeliest: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The loss of every target, and whether it is the likeliest token if that is asked for; nothing is kept."""
        self.begin()
        x = self._embedded(inputs.ids)
        for index, layer in enumerate(self._layers):
            self._have_weights(index, index + 1)
            x, _ = layer.forward(x, inputs.positions)
        nll = torch.empty(len(inputs.targets.rows), device=self._device)
        first = torch.empty(len(nll), dtype=torch.bool, device=self._device) if likeliest else None
        self._head.score(x, inputs.targets, nll, first)
        return nll, first

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.empty(len(ids), self._shape.hidden, dtype=self._dtype, device=self._device)
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
            self._parking[tokens] = Parking(self._shape, self.placement.kept, tokens, self._dtype, self._device)
        return self._parking[tokens]

    def _residual_of(self, tokens: int) -> torch.Tensor:
        """The end of the residual stream, then its gradient, `[tokens + 1, width]`; the last row belongs nowhere."""
        if self._residual is None or len(self._residual) < tokens + 1:
            rows = max(tokens, self.tokens) + 1
            self._residual = torch.zeros(rows, self._width, dtype=self._dtype, device=self._device)
        return self._residual[: tokens + 1]
