"""Linear layers in NF4 with their LoRA adapters, as one matrix product each way. Knows no decoder layer.

A base weight W is dequantized into a scratch matrix right before its product. An adapter takes part in the same product
by extra columns, y = [x | x Aᵀ] [W | sB]ᵀ, and in the backward pass by extra rows, dx = [dy | dy sB] [W ; A]: no result
is read and written a second time, and all is summed in fp32 before it is rounded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medmind_train.fused.kernels import Nf4, dequantize
from medmind_train.fused.shape import padded


@dataclass(frozen=True)
class Adapter:
    """LoRA on one linear layer: y += scale · B A x.

    Attributes:
        a, b: `[rank, inputs]` and `[outputs, rank]` fp32, views into flat buffers; so are their gradients.
        scale: alpha / rank, or as rsLoRA has it.
    """

    a: torch.Tensor
    b: torch.Tensor
    grad_a: torch.Tensor
    grad_b: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Linear:
    """A frozen linear layer, and the adapter on it if there is one."""

    weight: Nf4
    bias: torch.Tensor | None
    adapter: Adapter | None

    @property
    def rank(self) -> int:
        """0 without an adapter."""
        return self.adapter.rank if self.adapter else 0


class Projection:
    """Linear layers that read the same input.

    Attributes:
        members: the layers.
        inputs: columns of each.
        rank: of all their adapters together.
        width: columns of an input with room for x Aᵀ behind it.
    """

    def __init__(self, members: Sequence[Linear]) -> None:
        self.members = tuple(members)
        self.inputs = members[0].weight.columns
        self.rank = sum(member.rank for member in members)
        self.width = self.inputs + padded(self.rank)
        starts, start = [], 0
        for member in members:
            starts.append(start)
            start += member.rank
        self._starts = tuple(starts)

    def low(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """x Aᵀ for all members, `[tokens, padded rank]`: the padding is 0."""
        ranks = padded(self.rank)
        out = x.new_empty(len(x), ranks) if out is None else out
        for member, start in zip(self.members, self._starts, strict=True):
            if member.adapter:
                torch.mm(x, member.adapter.a.to(x.dtype).t(), out=out[:, start : start + member.rank])
        if self.rank < ranks:
            out[:, self.rank :].zero_()
        return out

    def widen(self, wide: torch.Tensor) -> None:
        """Fill the columns of `wide` behind its first `inputs` ones with x Aᵀ."""
        if self.rank:
            self.low(wide[:, : self.inputs], wide[:, self.inputs :])

    def forward(
        self, wide: torch.Tensor, out: torch.Tensor, *, only: int | None = None, add: torch.Tensor | None = None
    ) -> None:
        """out = add + x Wᵀ + s (x Aᵀ) Bᵀ + bias for all members side by side, or for the one numbered `only`.

        Args:
            wide: `[tokens, width]`, filled by `widen`.
            out: `[tokens, outputs]`, its rows any distance apart.
            add: `[tokens, outputs]`.
        """
        chosen = range(len(self.members)) if only is None else (only,)
        outputs = sum(self.members[index].weight.rows for index in chosen)
        scratch = wide.new_empty(outputs, self.width)
        if self.rank and (len(self.members) > 1 or padded(self.rank) > self.rank):
            scratch[:, self.inputs :].zero_()
        row = 0
        for index in chosen:
            member = self.members[index]
            rows = slice(row, row + member.weight.rows)
            dequantize(member.weight, scratch[rows, : self.inputs])
            if member.adapter:
                start = self.inputs + self._starts[index]
                _scaled(member.adapter, scratch[rows, start : start + member.rank])
            row = rows.stop
        if add is None:
            torch.mm(wide, scratch.t(), out=out)
        else:
            torch.addmm(add, wide, scratch.t(), out=out)
        row = 0
        for index in chosen:
            member = self.members[index]
            if member.bias is not None:
                out[:, row : row + member.weight.rows].add_(member.bias)
            row += member.weight.rows

    def backward(
        self,
        dy: torch.Tensor,
        x: torch.Tensor,
        low: torch.Tensor,
        dx: torch.Tensor,
        *,
        only: int | None = None,
        add: bool = False,
    ) -> None:
        """Add the adapters' gradients, and put the input's into `dx` (or add it); all members, or the one `only`.

        Args:
            dy: `[tokens, outputs + padded rank of the members meant]`; the columns behind the outputs are overwritten.
            x: `[tokens, inputs]`; `dx` may be the same.
            low: x Aᵀ as `low` gave it.
        """
        chosen = tuple(range(len(self.members))) if only is None else (only,)
        outputs = sum(self.members[index].weight.rows for index in chosen)
        rank = sum(self.members[index].rank for index in chosen)
        scratch = dx.new_empty(outputs + padded(rank), self.inputs)
        row, at = 0, outputs
        for index in chosen:
            member = self.members[index]
            rows = slice(row, row + member.weight.rows)
            dequantize(member.weight, scratch[rows])
            if adapter := member.adapter:
                places = slice(at, at + adapter.rank)
                mine = dy[:, rows]
                scaled = _scaled(adapter, dy.new_empty(adapter.b.shape))
                torch.mm(mine, scaled, out=dy[:, places])
                start = self._starts[index]
                accumulate(adapter.grad_b, mine.t(), low[:, start : start + adapter.rank], adapter.scale)
                accumulate(adapter.grad_a, dy[:, places].t(), x)
                scratch[places].copy_(adapter.a)
                at = places.stop
            row = rows.stop
        if at < len(scratch):
            scratch[at:].zero_()
            dy[:, at : len(scratch)].zero_()
        wide = dy[:, : len(scratch)]
        if add:
            dx.addmm_(wide, scratch)
        else:
            torch.mm(wide, scratch, out=dx)


def accumulate(gradient: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
    """gradient += scale · left right, the product summed in fp32."""
    if left.dtype == gradient.dtype:
        gradient.addmm_(left, right, alpha=scale)
    elif left.device.type == "cuda":
        torch.addmm(gradient, left, right, alpha=scale, out_dtype=gradient.dtype, out=gradient)
    else:
        gradient.add_(torch.mm(left, right), alpha=scale)


def _scaled(adapter: Adapter, out: torch.Tensor) -> torch.Tensor:
    """Scale · B, in the type of `out`."""
    return torch.mul(adapter.b, adapter.scale, out=out)
