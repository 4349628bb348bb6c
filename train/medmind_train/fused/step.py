"""The fused step: a PEFT model's loss and adapter gradients for one batch, without autograd. Knows all its parts.

Batches of the one shape it was made for run as CUDA graphs on a card; anything else runs as it is written.
"""

from dataclasses import replace
from typing import Any

import torch

from medmind_train.batches import Batch
from medmind_train.fused import attention
from medmind_train.fused.adapters import Adapters
from medmind_train.fused.attention import Documents
from medmind_train.fused.decoder import Decoder, Inputs
from medmind_train.fused.flat import Flat
from medmind_train.fused.graphs import Graphs
from medmind_train.fused.head import Targets
from medmind_train.fused.layer import Positions
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import Shape
from medmind_train.fused.stream import LayerStream
from medmind_train.loss import Scores


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

    lockstep = False

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
        shape = Shape.of(causal.config.to_dict())
        self.adapters = Adapters(model, shape)
        self.device = self.adapters.a.device
        self._dtype = dtype
        self._rotary = causal.get_decoder().rotary_emb
        self._usual = (batch, length)
        self._decoder = Decoder(
            causal,
            self.adapters.layers,
            placement,
            shape=shape,
            tokens=batch * length,
            dtype=dtype,
            device=self.device,
            stream=stream,
        )
        self._capturing = graphs and self.device.type == "cuda" and attention.capturable(dtype)
        self._graphs = self._made_graphs()

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """LoRA's A of all layers as one parameter, and its B as another; their `.grad` is always there."""
        return self.adapters.named_parameters()

    @property
    def pinned(self) -> int:
        """Bytes of host memory that copies go to and come from, as far as there have been batches."""
        return self._decoder.pinned

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
        if self._graphs is not None and tuple(batch.ids.shape) == self._usual:
            self._graphs.run(read, divisor)
        else:
            self._decoder.run(self._inputs(read, divisor))
        return self._decoder.share.clone()

    @torch.no_grad()
    def scores(self, batch: Batch, *, likeliest: bool = False) -> Scores:
        """Score the supervised tokens of a batch of any shape; see `loss.answer_scores`."""
        if self._graphs is not None:
            self._graphs.release()
        read = Flat(batch)
        nll, first = self._decoder.scores(self._inputs(read, 1.0), likeliest=likeliest)
        owners = batch.owners[:, 1:][batch.supervised[:, 1:]].to(self.device)
        return Scores(nll[: read.count], owners, first[: read.count] if first is not None else None)

    def shrink(self, rows: int) -> None:
        """Make graphs and buffers for batches of so many rows, in place of those there are."""
        self._usual = rows, self._usual[1]
        self._anew(self._decoder.placement)

    def leaner(self) -> bool:
        """Keep every layer's states on the host from here on; false where that is so already."""
        placement = self._decoder.placement
        lean = replace(placement, kept=(Keep.HOST,) * len(placement.kept))
        if lean == placement:
            return False
        self._anew(lean)
        return True

    def _anew(self, placement: Placement) -> None:
        """Drop all that was made for one shape and placement; a capture may have been broken off before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        rows, length = self._usual
        self._decoder.reshape(placement, rows * length)
        self._graphs = self._made_graphs()

    def _made_graphs(self) -> Graphs | None:
        return Graphs(self._decoder, self._decoder.tokens, self._inputs) if self._capturing else None

    def _inputs(self, read: Flat, divisor: float) -> Inputs:
        """Everything on the device, in new tensors."""
        like = torch.empty(0, dtype=self._dtype, device=self.device)
        cos, sin = self._rotary(like, self._sent(read.places)[None])
        return Inputs(
            self._sent(read.ids),
            Positions(cos[0], sin[0], Documents(self._sent(read.bounds), read.longest)),
            Targets(self._sent(read.rows), self._sent(read.targets)),
            torch.full((), 1 / divisor, device=self.device),
        )

    def _sent(self, array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor
