"""Decoder layers whose NF4 weights wait in page-locked host memory and share a few places on the card.

Knows bitsandbytes' quantized layers and copies; no file, no schedule: who trains says when a layer has to be there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from medmind_train.fused.host import Pages
from medmind_train.fused.shape import BLOCK, BLOCK2

_ALIGN = 16  # bytes: what a kernel may load at once


def bind(linear: Any, packed: torch.Tensor, state: Any) -> None:
    """Let a bitsandbytes `Linear4bit` work with these quantized weights.

    Args:
        packed: `[rows * columns / 2, 1]` uint8.
        state: its bitsandbytes `QuantState`.
    """
    from bitsandbytes.nn import Params4bit

    before = linear.weight
    linear.weight = Params4bit(
        packed,
        requires_grad=False,
        quant_state=state,
        blocksize=before.blocksize,
        compress_statistics=before.compress_statistics,
        quant_type=before.quant_type,
        quant_storage=before.quant_storage,
        module=linear,
        bnb_quantized=True,
    )
    linear.quant_state = state
    # In eval mode bitsandbytes would repack the layer for a bf16 kernel of some CPUs, for good (see model.load_base).
    linear.support_avx512bf16_for_cpu = False


class LayerStream:
    """The streamed layers: a contiguous host buffer for each, and `slots` buffers of the same layout on the card.

    Layer i always uses slot i % slots: what its modules hold (`weight.data`, `quant_state.absmax`, `.offset`,
    `.state2.absmax`) are views of that slot, made once by `fill`, so that they have the same addresses for ever. The
    slot holds the layer's weights from its `fetch` to the fetch of the next layer of the same slot.

    An ordinary forward or backward pass through a layer fetches it first, on the current stream, unless it happens
    `by_hand`. state_dict gives what is on the host.

    Attributes:
        host: each layer's bytes, first layer first.
        card: each slot's bytes.
    """

    def __init__(self, layers: Sequence[torch.nn.Module], device: torch.device, slots: int = 2) -> None:
        """Make room.

        Args:
            layers: those that are streamed, first layer first, all of one shape; their linear layers are `Linear4bit`,
                not filled yet.
            device: where they compute.
            slots: places on the device, at least 1.

        Raises:
            MedmindError: the system does not let so much memory be locked.
        """
        from bitsandbytes.nn import Linear4bit

        self._by_hand = False
        self._places: dict[Any, tuple[int, _Place]] = {}
        size = 0
        for index, layer in enumerate(layers):
            end = 0
            for module in layer.modules():
                if isinstance(module, Linear4bit):
                    place = _Place(end, int(module.out_features) * int(module.in_features))
                    self._places[module] = index, place
                    end = place.end
            size = max(size, end)
        self._memory = [Pages(size, device) for _ in layers]
        self.host = [memory.bytes for memory in self._memory]
        self.card = [torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(min(slots, len(layers)))]
        self._hooks = [
            hook
            for index, layer in enumerate(layers)
            for hook in (
                layer.register_forward_pre_hook(lambda *_, index=index: self._called(index)),
                # also before the layer is computed again: transformers checkpoints inside of the hooks
                layer.register_full_backward_pre_hook(lambda *_, index=index: self._called(index)),
            )
        ]

    def __contains__(self, linear: Any) -> bool:
        """Whether a linear layer is one of a streamed layer."""
        return linear in self._places

    def slot(self, layer: int) -> torch.Tensor:
        """The place on the device that a layer uses."""
        return self.card[layer % len(self.card)]

    def fill(self, linear: Any, packed: torch.Tensor, state: Any) -> None:
        """Copy a linear layer's quantized weights to the host, and bind the layer to its place in the slot.

        Args:
            linear: one of a streamed layer.
            packed, state: as bitsandbytes' `quantize_4bit` returns them, double quantization and all.
        """
        layer, place = self._places[linear]
        kept = place.views(self.host[layer])
        for view, tensor in zip(kept, (packed, state.absmax, state.state2.absmax, state.offset), strict=True):
            assert view.shape == tensor.shape and view.dtype == tensor.dtype, (view.shape, tensor.shape, tensor.dtype)
            view.copy_(tensor)
        used = place.views(self.slot(layer))
        bind(linear, used[0], _state(state, *used[1:]))
        saved = _state(state, *kept[1:])

        def save(_: Any, destination: dict[str, Any], prefix: str, __: Any) -> None:
            destination[f"{prefix}weight"] = kept[0]
            for name, value in saved.as_dict(packed=True).items():
                destination[f"{prefix}weight.{name}"] = value

        linear.register_state_dict_post_hook(save)

    def fetch(self, layer: int) -> None:
        """Enqueue the copy of a layer's weights to its slot, on the current stream, without waiting for it."""
        self.slot(layer).copy_(self.host[layer], non_blocking=True)

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Inside, a pass through a layer fetches nothing: the caller does, in time."""
        before, self._by_hand = self._by_hand, True
        try:
            yield
        finally:
            self._by_hand = before

    def remove_hooks(self) -> None:
        """For good: from now on a layer is there only if `fetch` was called."""
        for hook in self._hooks:
            hook.remove()

    def _called(self, layer: int) -> None:
        if not self._by_hand:
            self.fetch(layer)


@dataclass(frozen=True)
class _Place:
    """Where a linear layer's tensors lie in a layer's buffer.

    Attributes:
        start: of its first byte.
        weights: rows * columns.
    """

    start: int
    weights: int

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """Bytes of packed weights, number of their scales, and of the scales' scales."""
        scales = -(-self.weights // BLOCK)
        return -(-self.weights // 2), scales, -(-scales // BLOCK2)

    @property
    def _offsets(self) -> tuple[int, int, int, int]:
        packed, scales, scales2 = self._sizes
        absmax = self.start + _aligned(packed)
        absmax2 = absmax + _aligned(scales)
        return self.start, absmax, absmax2, absmax2 + _aligned(4 * scales2)

    @property
    def end(self) -> int:
        """Of its last byte, and what it needs to let the next start aligned."""
        return self._offsets[-1] + _ALIGN

    def views(self, buffer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Packed weights, uint8 scales, their fp32 scales, and the mean that was taken off before (0-d fp32)."""
        packed, scales, scales2 = self._sizes
        at_packed, at_absmax, at_absmax2, at_offset = self._offsets
        return (
            buffer[at_packed : at_packed + packed].view(-1, 1),
            buffer[at_absmax : at_absmax + scales],
            buffer[at_absmax2 : at_absmax2 + 4 * scales2].view(torch.float32),
            buffer[at_offset : at_offset + 4].view(torch.float32)[0],
        )


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _state(state: Any, absmax: torch.Tensor, absmax2: torch.Tensor, offset: torch.Tensor) -> Any:
    """The same quantization with its tensors elsewhere; the two code books, 1 KiB, are shared."""
    from bitsandbytes.functional import QuantState

    second = state.state2
    return QuantState(
        absmax=absmax,
        shape=state.shape,
        code=state.code,
        blocksize=state.blocksize,
        quant_type=state.quant_type,
        dtype=state.dtype,
        offset=offset,
        state2=QuantState(absmax=absmax2, code=second.code, blocksize=second.blocksize, dtype=second.dtype),
    )
