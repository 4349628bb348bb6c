"""What the fused step computes beside matrix products and attention: the contract of each piece, and plain torch.

On a card each function runs its Triton version (triton_kernels.py) where Triton is there. Knows no layer and no model.

Every matrix here is [rows, columns] with neighbours in a row side by side (stride(1) == 1) and any row stride: it may
be a view of a wider buffer. Matrices are fp32 or bf16, arithmetic is in fp32, and results are rounded once. Nothing
here waits for the card, so that a CUDA graph can hold it, once each function has run outside of one (Triton compiles
at the first call).
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from medmind_train.fused.shape import BLOCK, BLOCK2, Unsupported


@cache
def available() -> bool:
    """Whether Triton is installed and a card is there: the fast versions run."""
    return find_spec("triton") is not None and torch.cuda.is_available()


def _fast(tensor: Tensor) -> ModuleType | None:
    """The module of the Triton versions, if they can run on this tensor."""
    if not tensor.is_cuda or not available():
        return None
    from medmind_train.fused import triton_kernels

    return triton_kernels


@dataclass(frozen=True)
class Nf4:
    """A matrix [rows, columns] of 4-bit weights, as bitsandbytes lays it out with double quantization.

    A weight is `table[nibble] * scale` of its block of 64; a scale is `code[absmax] * absmax2 + offset`.

    Attributes:
        packed: uint8 [rows * columns / 2], two weights a byte, row by row, the first in the high nibble.
        absmax: uint8 [rows * columns / 64].
        code: fp32 [256], what a byte of absmax stands for.
        absmax2: fp32 [ceil(rows * columns / 64 / 256)].
        offset: fp32, 0-d.
        table: fp32 [16], the NF4 values.
    """

    packed: Tensor
    absmax: Tensor
    code: Tensor
    absmax2: Tensor
    offset: Tensor
    table: Tensor
    rows: int
    columns: int

    @classmethod
    def of(cls, parameter: Any) -> "Nf4":
        """View the tensors of a quantized bitsandbytes `Params4bit`; nothing is copied.

        Raises:
            Unsupported: it is quantized in another way (fp4, blocks of another size, no double quantization, packed in
                another type, rows that do not end with a block), or not yet.
        """
        state, packed = getattr(parameter, "quant_state", None), parameter.data
        if state is None:
            raise Unsupported("a weight is not quantized by bitsandbytes")
        if state.quant_type != "nf4":
            raise Unsupported(f"a weight is quantized to {state.quant_type}, not nf4")
        if state.blocksize != BLOCK:
            raise Unsupported(f"a weight is quantized in blocks of {state.blocksize}, not {BLOCK}")
        if not state.nested or state.state2.blocksize != BLOCK2:
            raise Unsupported(f"a weight's scales are not quantized in blocks of {BLOCK2} (double quantization)")
        if packed.dtype != torch.uint8:
            raise Unsupported(f"a weight is packed in {packed.dtype}, not torch.uint8")
        if len(state.shape) != 2 or state.shape[1] % BLOCK:
            shape = tuple(state.shape)
            raise Unsupported(f"a weight has the shape {shape}: its rows do not end with a block of {BLOCK}")
        rows, columns = state.shape
        if packed.numel() * 2 != rows * columns or getattr(state, "packing_format_for_cpu", False):
            raise Unsupported("a weight is packed in another order")
        if rows * columns >= 2**31:
            raise Unsupported(f"a weight of shape {tuple(state.shape)} has more than 2^31 elements")
        return cls(
            packed=packed.reshape(-1),
            absmax=state.absmax,
            code=state.state2.code,
            absmax2=state.state2.absmax,
            offset=state.offset.reshape(()),
            table=state.code,
            rows=int(rows),
            columns=int(columns),
        )


def dequantize(weight: Nf4, out: Tensor, rows: slice | None = None) -> None:
    """Write rows of a 4-bit matrix (all of them without `rows`) into `out` [rows, columns], bf16 or fp32.

    Bit-equal with `bitsandbytes.functional.dequantize_4bit`.
    """
    start, stop, _ = (rows or slice(None)).indices(weight.rows)
    if fast := _fast(out):
        fast.dequantize(weight, out, start, stop)
        return
    blocks = weight.columns // BLOCK
    first, last = start * blocks, stop * blocks
    packed = weight.packed[first * BLOCK // 2 : last * BLOCK // 2]
    block = torch.arange(first, last, device=packed.device)
    scale = weight.code[weight.absmax[first:last].long()] * weight.absmax2[block // BLOCK2] + weight.offset
    nibbles = torch.stack((packed >> 4, packed & 15), dim=1).view(-1, BLOCK)
    out.copy_((weight.table[nibbles.int()] * scale[:, None]).view(stop - start, weight.columns))


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """out = weight * x / sqrt(mean(x^2) + eps), over the columns of x [T, hidden]; weight [hidden].

    As transformers' MistralRMSNorm: the normalized x is rounded to its own type before it is multiplied.
    """
    if fast := _fast(x):
        fast.rms_norm(x, weight, eps, out)
        return
    wide = x.float()
    normal = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    out.copy_(weight.float() * normal.float())


def rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> None:
    """residual += the gradient with respect to x [T, hidden] of `rms_norm`, in place; dy is that of its output."""
    if fast := _fast(x):
        fast.rms_norm_backward(dy, x, weight, eps, residual)
        return
    wide = x.float()
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    normal, scaled = wide * rstd, dy.float() * weight.float()
    gradient = rstd * (scaled - normal * (normal * scaled).mean(-1, keepdim=True))
    residual.copy_(residual.float() + gradient)


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, head_dim: int, inverse: bool = False) -> None:
    """Rotary embedding in place on the first heads * head_dim columns of qkv [T, >= heads * head_dim].

    cos and sin [T, head_dim] as transformers' rotary embedding returns them: the second half repeats the first, and
    a head's column i turns with its column i + head_dim / 2. With `inverse` it turns back, which is the backward pass.
    """
    if fast := _fast(qkv):
        fast.rotate(qkv, cos, sin, heads, head_dim, inverse)
        return
    half = head_dim // 2
    part = qkv[:, : heads * head_dim].view(-1, heads, head_dim)
    first, second = part[..., :half].float(), part[..., half:].float()
    c, s = cos[:, None, :half].float(), sin[:, None, :half].float() * (-1 if inverse else 1)
    part.copy_(torch.cat((first * c - second * s, second * c + first * s), dim=-1))


def swiglu(gate: Tensor, up: Tensor, out: Tensor) -> None:
    """out = silu(gate) * up, all [T, ffn]; out may be gate or up itself."""
    if fast := _fast(gate):
        fast.swiglu(gate, up, out)
        return
    wide = gate.float()
    out.copy_(wide * torch.sigmoid(wide) * up.float())


def swiglu_backward(gate: Tensor, up: Tensor, dh: Tensor) -> None:
    """From the gradient dh [T, ffn] of `swiglu`'s output: gate becomes its own gradient, up its own, in place."""
    if fast := _fast(gate):
        fast.swiglu_backward(gate, up, dh)
        return
    wide, above = gate.float(), dh.float()
    sigmoid = torch.sigmoid(wide)
    slope = sigmoid * (1 + wide * (1 - sigmoid))
    one, two = above * up.float() * slope, above * wide * sigmoid  # both before either: in fp32 `wide` is gate itself
    gate.copy_(one)
    up.copy_(two)


def cross_entropy(
    logits: Tensor, targets: Tensor, scale: Tensor, nll: Tensor, first: Tensor | None, gradient: bool
) -> None:
    """Loss of each row of logits [n, vocabulary] and, in place, its gradient.

    Args:
        logits: with `gradient` they become (softmax - onehot(target)) * scale, else they stay.
        targets: int64 [n]; of a negative one the loss and the gradient are 0.
        scale: fp32, 0-d, on the logits' device.
        nll: fp32 [n], written: logsumexp - logit[target], in nats.
        first: bool [n], written if given: the target has the largest logit; of equal ones the lowest index counts.
        gradient: whether to write the gradient.
    """
    if fast := _fast(logits):
        fast.cross_entropy(logits, targets, scale, nll, first, gradient)
        return
    counts, index = targets >= 0, targets.clamp(min=0)[:, None]
    likely = logits.float().log_softmax(-1)
    nll.copy_(torch.where(counts, -likely.gather(1, index)[:, 0], 0.0))
    if first is not None:
        first.copy_(logits.argmax(-1) == targets)
    if gradient:
        softmax = likely.exp()
        softmax.scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32))
        logits.copy_(torch.where(counts[:, None], softmax * scale, 0.0))


def embed(ids: Tensor, table: Tensor, out: Tensor) -> None:
    """out[t] = table[ids[t]]: ids int64 [T], table [vocabulary, hidden], out [T, hidden] of the table's type.

    On a card the table may lie in pinned host memory, where the kernel reads the rows it needs.
    """
    if fast := _fast(out):
        fast.embed(ids, table, out)
        return
    out.copy_(table.index_select(0, ids.to(table.device)))
