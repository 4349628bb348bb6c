"""The end of the model: final norm, head and loss of the supervised positions, and its gradient. Never all logits."""

from dataclasses import dataclass

import torch

from medmind_train.fused import kernels
from medmind_train.fused.lifetimes import CHUNK


@dataclass(frozen=True)
class Targets:
    """What is to be predicted, and where.

    Attributes:
        rows: `[n]` int64, the token whose state predicts; the number of tokens where a place is empty.
        tokens: `[n]` int64, the id that is right; -1 where a place is empty.
    """

    rows: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True)
class Head:
    """Final norm and head.

    Attributes:
        norm: `[hidden]`.
        weight: `[vocabulary, hidden]`, on the device or in pinned host memory.
    """

    norm: torch.Tensor
    weight: torch.Tensor
    eps: float

    def forward(
        self,
        x: torch.Tensor,
        targets: Targets,
        nll: torch.Tensor,
        *,
        first: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
        gradient: torch.Tensor | None = None,
    ) -> None:
        """Score the targets.

        Args:
            x: `[tokens, hidden]`, what the last layer gives.
            nll: `[n]` fp32, takes the losses; 0 at empty places.
            first: `[n]` bool, takes whether the target is the likeliest token.
            scale: 0-d fp32, what the losses are multiplied by for `gradient`.
            gradient: `[tokens + 1, hidden or more]`, takes the gradient at `x`; its last row is for empty places.
        """
        hidden = x.shape[1]
        weight = self.weight if self.weight.device == x.device else self.weight.to(x.device, non_blocking=True)
        normed = x.new_empty(len(targets.rows), hidden)
        kernels.rms_norm(_gathered(x, targets), self.norm, self.eps, normed)
        for start in range(0, len(normed), CHUNK):
            part = slice(start, start + CHUNK)
            logits = torch.mm(normed[part], weight.t())
            kernels.cross_entropy(
                logits,
                targets.tokens[part],
                nll.new_zeros(()) if scale is None else scale,
                nll[part],
                None if first is None else first[part],
                gradient=gradient is not None,
            )
            if gradient is not None:
                torch.mm(logits, weight, out=normed[part])
            del logits
        del weight
        if gradient is None:
            return
        back = torch.zeros_like(normed)
        kernels.rms_norm_backward(normed, _gathered(x, targets), self.norm, self.eps, back)
        gradient.zero_()
        gradient[:, :hidden].index_copy_(0, targets.rows, back)


def _gathered(x: torch.Tensor, targets: Targets) -> torch.Tensor:
    """The states that predict, `[n, hidden]`; gathered twice rather than kept beside the head's weights."""
    return x.index_select(0, targets.rows.clamp(max=len(x) - 1))
