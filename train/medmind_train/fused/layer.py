"""One decoder layer forward and backward, written out. Knows which tensor lives from where to where; no placement.

Names are the ones of the equations: x enters, n1 = norm(x), o = attention(rotated qkv), x_mid = x + W_o o,
n2 = norm(x_mid), h = silu(gate) · up, and x_mid + W_down h leaves. A `del` in here is memory: the peak of a step lies
in `_mlp_backward`.
"""

from dataclasses import dataclass

import torch

from medmind_train.fused import attention, kernels
from medmind_train.fused.attention import Attended, Documents
from medmind_train.fused.projection import Projection
from medmind_train.fused.shape import Shape, padded


@dataclass
class Kept:
    """What the forward pass of a layer leaves for its backward pass.

    Attributes:
        x, x_mid: `[tokens, hidden]`.
        attended: the attention's output and its statistics.
        qkv: `[tokens, outputs of q, k and v]`, rotated; None: computed again.
        gate, up: `[tokens, ffn + padded rank]`; None: computed again.
    """

    x: torch.Tensor
    attended: Attended
    x_mid: torch.Tensor
    qkv: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    up: torch.Tensor | None = None


@dataclass(frozen=True)
class Positions:
    """What attention needs to know of the tokens.

    Attributes:
        cos, sin: `[tokens, head_dim]`, of each token's place in its document.
        documents: where documents begin and end.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    documents: Documents


@dataclass(frozen=True)
class Layer:
    """A decoder layer.

    Attributes:
        first_norm, second_norm: `[hidden]`.
        qkv, o, gate_up, down: its linear layers.
    """

    shape: Shape
    first_norm: torch.Tensor
    second_norm: torch.Tensor
    qkv: Projection
    o: Projection
    gate_up: Projection
    down: Projection

    @property
    def gradient_width(self) -> int:
        """Columns of the residual stream's gradient, with room for what the adapters of `o` and `down` put there."""
        return self.shape.hidden + max(padded(self.o.rank), padded(self.down.rank))

    def forward(
        self, x: torch.Tensor, positions: Positions, *, keep_all: bool = False, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Kept]:
        """Run the layer.

        Args:
            x: `[tokens, hidden]`; it is kept, not changed.
            keep_all: keep qkv, gate and up.
            out: where to put the result, `[tokens, hidden]`.
        """
        wide = self._normed(x, self.first_norm, self.qkv)
        qkv = self._qkv(wide, positions)
        del wide
        query, key, value = self._heads(qkv)
        attended = attention.forward(query, key, value, positions.documents, self.shape.window)
        kept_qkv = qkv if keep_all else None
        del query, key, value, qkv
        wide = x.new_empty(len(x), self.o.width)
        wide[:, : self.o.inputs].copy_(attended.out.view(len(x), -1))
        self.o.widen(wide)
        x_mid = torch.empty_like(x)
        self.o.forward(wide, x_mid, add=x)
        wide = self._normed(x_mid, self.second_norm, self.gate_up)
        gate, up = self._gate_and_up(wide)
        del wide
        kept = Kept(x, attended, x_mid, kept_qkv, gate if keep_all else None, up if keep_all else None)
        h = x.new_empty(len(x), self.down.width) if keep_all else gate[:, : self.down.width]
        ffn = self.shape.ffn
        kernels.swiglu(gate[:, :ffn], up[:, :ffn], h[:, :ffn])
        del gate, up
        self.down.widen(h)
        out = torch.empty_like(x) if out is None else out
        self.down.forward(h, out, add=x_mid)
        return out, kept

    def mlp_backward(self, gradient: torch.Tensor, x_mid: torch.Tensor, kept: Kept | None) -> None:
        """Turn the gradient at the layer's output into that at `x_mid`, in place; the adapters' gradients are added.

        Args:
            gradient: `[tokens, gradient_width]`, of which the first `hidden` columns count.
            kept: with gate and up, or None to compute them again. They are overwritten.
        """
        ffn, hidden = self.shape.ffn, self.shape.hidden
        wide = self._normed(x_mid, self.second_norm, self.gate_up)
        gate, up = (kept.gate, kept.up) if kept else (None, None)
        if gate is None or up is None:
            gate, up = self._gate_and_up(wide)
        dh = gate.new_empty(len(gate), ffn)
        kernels.swiglu(gate[:, :ffn], up[:, :ffn], dh)  # h itself, which the gradient of A wants
        self.down.backward(gradient, dh, self.down.low(dh), dh)
        kernels.swiglu_backward(gate[:, :ffn], up[:, :ffn], dh)
        del dh
        normed, low = wide[:, :hidden], wide[:, hidden:]
        d_normed = torch.empty_like(x_mid)
        self.gate_up.backward(gate, normed, low, d_normed, only=0)
        del gate
        self.gate_up.backward(up, normed, low, d_normed, only=1, add=True)
        del up
        kernels.rms_norm_backward(d_normed, x_mid, self.second_norm, self.shape.eps, gradient[:, :hidden])

    def attention_backward(self, gradient: torch.Tensor, kept: Kept, positions: Positions) -> None:
        """Turn the gradient at `x_mid` into that at `x`, in place; the adapters' gradients are added."""
        shape, x = self.shape, kept.x
        hidden, tokens = shape.hidden, len(x)
        out = kept.attended.out.view(tokens, -1)
        d_out = torch.empty_like(out)
        self.o.backward(gradient, out, self.o.low(out), d_out)
        wide = self._normed(x, self.first_norm, self.qkv)
        qkv = self._qkv(wide, positions) if kept.qkv is None else kept.qkv
        d_heads = attention.backward(
            d_out.view(tokens, shape.heads, shape.head_dim),
            *self._heads(qkv),
            kept.attended,
            positions.documents,
            shape.window,
        )
        del d_out, qkv
        outputs = sum(member.weight.rows for member in self.qkv.members)
        d_qkv = x.new_empty(tokens, outputs + padded(self.qkv.rank))
        torch.cat([one.reshape(tokens, -1) for one in d_heads], dim=1, out=d_qkv[:, :outputs])
        del d_heads
        self._rotate(d_qkv, positions, inverse=True)
        d_normed = torch.empty_like(x)
        self.qkv.backward(d_qkv, wide[:, :hidden], wide[:, hidden:], d_normed)
        kernels.rms_norm_backward(d_normed, x, self.first_norm, shape.eps, gradient[:, :hidden])

    def _normed(self, x: torch.Tensor, weight: torch.Tensor, reader: Projection) -> torch.Tensor:
        wide = x.new_empty(len(x), reader.width)
        kernels.rms_norm(x, weight, self.shape.eps, wide[:, : self.shape.hidden])
        reader.widen(wide)
        return wide

    def _qkv(self, wide: torch.Tensor, positions: Positions) -> torch.Tensor:
        qkv = wide.new_empty(len(wide), sum(member.weight.rows for member in self.qkv.members))
        self.qkv.forward(wide, qkv)
        self._rotate(qkv, positions)
        return qkv

    def _rotate(self, qkv: torch.Tensor, positions: Positions, *, inverse: bool = False) -> None:
        heads = self.shape.heads + self.shape.kv_heads
        kernels.rotate(qkv, positions.cos, positions.sin, heads, self.shape.head_dim, inverse=inverse)

    def _heads(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = self.shape
        heads = qkv.view(len(qkv), shape.heads + 2 * shape.kv_heads, shape.head_dim)
        query, key, value = torch.split(heads, [shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        return query, key, value

    def _gate_and_up(self, wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gate and up, each with room for its own adapter's columns or, in the gate, for those of `down`."""
        ffn, (one, two) = self.shape.ffn, self.gate_up.members
        gate = wide.new_empty(len(wide), ffn + max(padded(one.rank), padded(self.down.rank)))
        up = wide.new_empty(len(wide), ffn + padded(two.rank))
        self.gate_up.forward(wide, gate[:, :ffn], only=0)
        self.gate_up.forward(wide, up[:, :ffn], only=1)
        return gate, up
