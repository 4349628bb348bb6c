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

    def train(self, residual: torch.Tensor, targets: Targets, nll: torch.Tensor, scale: torch.Tensor) -> None:
        """Score the targets, and turn what the last layer gave into the gradient there, in place.

        Args:
            residual: `[tokens + 1, hidden or more]`; its last row is for empty places. No target's row comes twice.
            targets: a multiple of `CHUNK` of them.
            nll: `[n]` fp32, takes the losses; 0 at empty places.
            scale: 0-d fp32, what the losses are multiplied by for the gradient.
        """
        x = residual[:, : len(self.norm)]
        weight = self._weight(x.device)
        for start in range(0, len(nll), CHUNK):
            part = slice(start, start + CHUNK)
            rows = targets.rows[part]
            states = x.index_select(0, rows)
            normed = torch.empty_like(states)
            kernels.rms_norm(states, self.norm, self.eps, normed)
            logits = torch.mm(normed, weight.t())
            kernels.cross_entropy(logits, targets.tokens[part], scale, nll[part], None, gradient=True)
            torch.mm(logits, weight, out=normed)
            del logits
            back = torch.zeros_like(states)
            kernels.rms_norm_backward(normed, states, self.norm, self.eps, back)
            x.index_copy_(0, rows, back)
            del states, normed, back
        del weight
        rest = torch.ones(len(x), dtype=torch.bool, device=x.device).index_fill_(0, targets.rows, False)
        x.masked_fill_(rest[:, None], 0)

    def score(self, x: torch.Tensor, targets: Targets, nll: torch.Tensor, first: torch.Tensor | None) -> None:
        """Score the targets.

        Args:
            x: `[tokens, hidden]`, what the last layer gives.
            nll: `[n]` fp32, takes the losses; 0 at empty places.
            first: `[n]` bool, takes whether the target is the likeliest token.
        """
        weight = self._weight(x.device)
        for start in range(0, len(nll), CHUNK):
            part = slice(start, start + CHUNK)
            states = x.index_select(0, targets.rows[part].clamp(max=len(x) - 1))
            normed = torch.empty_like(states)
            kernels.rms_norm(states, self.norm, self.eps, normed)
            logits = torch.mm(normed, weight.t())
            likeliest = None if first is None else first[part]
            kernels.cross_entropy(logits, targets.tokens[part], nll.new_zeros(()), nll[part], likeliest, gradient=False)

    def _weight(self, device: torch.device) -> torch.Tensor:
        return self.weight if self.weight.device == device else self.weight.to(device, non_blocking=True)
