"""What layers leave for the backward pass, kept on the card or parked on the host. Knows `Keep`; no arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medmind_train.fused.attention import Attended
from medmind_train.fused.lanes import Arrival, Lane
from medmind_train.fused.layer import Kept
from medmind_train.fused.placement import Keep
from medmind_train.fused.shape import Shape


@dataclass(frozen=True)
class _Place:
    """A layer's buffers on the host."""

    x: torch.Tensor
    out: torch.Tensor
    x_mid: torch.Tensor


class Parking:
    """Takes what each layer's forward pass leaves and gives it back, last layer first.

    Where a layer is parked on the host, its tensors go there while the next layer computes, and come back one phase
    ahead of their use.
    """

    def __init__(
        self, shape: Shape, keep: Sequence[Keep], tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.keep = tuple(keep)
        self._out, self._back = Lane(device), Lane(device)
        self._device = device
        pin = device.type == "cuda"
        attention = shape.heads * shape.head_dim

        def host(columns: int) -> torch.Tensor:
            return torch.empty(tokens, columns, dtype=dtype, pin_memory=pin)

        self._host = {
            index: _Place(host(shape.hidden), host(attention), host(shape.hidden))
            for index, kind in enumerate(self.keep)
            if kind is Keep.HOST
        }
        self._heads = (shape.heads, shape.head_dim)
        self._kept: dict[int, Kept] = {}
        self._statistics: dict[int, tuple[torch.Tensor, ...]] = {}
        self._leaving: tuple[Kept, Arrival] | None = None
        self._coming: dict[int, tuple[list[torch.Tensor], Arrival]] = {}

    @property
    def pinned(self) -> int:
        """Bytes on the host."""
        return sum(one.nbytes for place in self._host.values() for one in (place.x, place.out, place.x_mid))

    def put(self, index: int, kept: Kept) -> None:
        """Take what layer `index` leaves; call it after the layer."""
        self._let_go()
        if self.keep[index] is not Keep.HOST:
            self._kept[index] = kept
            return
        place = self._host[index]
        self._statistics[index] = kept.attended.statistics
        out = kept.attended.out.view(place.out.shape)
        arrival = self._out.copy([(place.x, kept.x), (place.out, out), (place.x_mid, kept.x_mid)])
        self._leaving = kept, arrival

    def finish(self) -> None:
        """All layers are through: nothing is on its way any more."""
        self._let_go()

    def call_mid(self, index: int) -> None:
        """Have layer `index`'s x_mid on the card soon."""
        if index >= 0 and self.keep[index] is Keep.HOST:
            self._call(index, [self._host[index].x_mid])

    def call_rest(self, index: int) -> None:
        """Have layer `index`'s x and attention output on the card soon."""
        if self.keep[index] is Keep.HOST:
            place = self._host[index]
            self._call(index, [place.x, place.out])

    def take_mid(self, index: int) -> tuple[torch.Tensor, Kept | None]:
        """Layer `index`'s x_mid and, where gate and up are kept, what holds them."""
        if self.keep[index] is Keep.HOST:
            (x_mid,) = self._arrived(index)
            return x_mid, None
        kept = self._kept[index]
        return kept.x_mid, kept if self.keep[index] is Keep.ALL else None

    def take_rest(self, index: int, x_mid: torch.Tensor) -> Kept:
        """All that layer `index` left; it is forgotten here."""
        if self.keep[index] is not Keep.HOST:
            return self._kept.pop(index)
        x, out = self._arrived(index)
        return Kept(x, Attended(out.view(-1, *self._heads), self._statistics.pop(index)), x_mid)

    def _call(self, index: int, sources: list[torch.Tensor]) -> None:
        targets = [torch.empty(source.shape, dtype=source.dtype, device=self._device) for source in sources]
        self._coming[index] = targets, self._back.copy(list(zip(targets, sources, strict=True)))

    def _arrived(self, index: int) -> list[torch.Tensor]:
        targets, arrival = self._coming.pop(index)
        arrival.wait()
        return targets

    def _let_go(self) -> None:
        if self._leaving:
            self._leaving[1].wait()
            self._leaving = None
