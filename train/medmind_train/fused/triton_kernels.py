"""The functions of kernels.py as Triton kernels, for a card. Their contract stands there; here is how they are done.

Imported only where Triton is (kernels.py). `TRITON_INTERPRET=1` runs them on a CPU, for tests.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from medmind_train.fused.kernels import Nf4

WORDS, WARPS = 512, 4
"""Words of 8 weights that a program of `dequantize` takes, and its warps. Lookups by the first-level cache, by shuffles
and by byte permutes, and other sizes, were timed on an H200: none was faster by more than 2 %."""


@triton.jit
def _values(bits, table):
    """The fp32 values [n, 8] of the codes in words [n]; in a byte the high nibble is first."""
    codes = (bits[:, None] >> (4 * (tl.arange(0, 8) ^ 1))[None, :]) & 15
    found = tl.gather(tl.load(table + tl.arange(0, 16)), tl.reshape(codes, [bits.shape[0] * 8]), 0)
    return tl.reshape(found, [bits.shape[0], 8])


@triton.jit
def _dequantize(
    packed, absmax, code, absmax2, offset, table, out, stride, first, words,
    ROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program takes BLOCK words of 8 weights; a row of the matrix has ROW words, a word has one scale.

    A thread reads whole words and writes 16 bytes of bf16 for each, neighbours beside it.
    """
    start = tl.program_id(0) * BLOCK
    word = start + tl.arange(0, BLOCK)
    mask = word < words
    # one word a thread and load, else Triton takes four, and moves three of them to the threads that write them
    source = tl.max_contiguous(first + word, 1)
    bits = tl.load(packed + source, mask=mask, other=0, eviction_policy="evict_first")
    block = (first + word) >> 3
    byte = tl.load(absmax + block, mask=mask, other=0).to(tl.int32)
    scale = tl.load(code + byte) * tl.load(absmax2 + (block >> 8), mask=mask, other=0.0) + tl.load(offset)
    row = word // ROW
    place = row * stride + (word - row * ROW) * 8
    values = _values(bits, table) * scale[:, None]
    tl.store(out + place[:, None] + tl.arange(0, 8)[None, :], values.to(out.dtype.element_ty), mask=mask[:, None])


def dequantize(weight: "Nf4", out: Tensor, start: int, stop: int) -> None:
    """As kernels.dequantize, rows start to stop."""
    row = weight.columns // 8
    words = (stop - start) * row
    # bitsandbytes rounds code * absmax2 before it adds the offset: no fused multiply-add
    _dequantize[(triton.cdiv(words, WORDS),)](
        weight.packed.view(torch.int32), weight.absmax, weight.code, weight.absmax2, weight.offset, weight.table,
        out, out.stride(0), start * row, words,
        ROW=row, BLOCK=WORDS, num_warps=WARPS, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _rms_norm(x, weight, out, x_stride, out_stride, eps, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < columns
    wide = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(wide * wide, 0) / columns + eps)
    normal = (wide * rstd).to(x.dtype.element_ty).to(tl.float32)
    scaled = normal * tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, scaled.to(out.dtype.element_ty), mask=mask)


def _row_config(columns: int) -> dict[str, int]:
    """Block and warps of a program that holds a whole row: 8 to 16 elements a thread."""
    block = triton.next_power_of_2(columns)
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), 16)}


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """As kernels.rms_norm; a program takes a row."""
    rows, columns = x.shape
    _rms_norm[(rows,)](x, weight, out, x.stride(0), out.stride(0), eps, columns, **_row_config(columns))


@triton.jit
def _rms_norm_backward(
    dy, x, weight, residual, dy_stride, x_stride, residual_stride, eps, columns, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < columns
    wide = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32)
    above = tl.load(dy + row * dy_stride + column, mask=mask, other=0.0).to(tl.float32)
    scaled = above * tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    place = residual + row * residual_stride + column
    old = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(wide * wide, 0) / columns + eps)
    normal = wide * rstd
    gradient = rstd * (scaled - normal * (tl.sum(normal * scaled, 0) / columns))
    tl.store(place, (old + gradient).to(residual.dtype.element_ty), mask=mask)


def rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> None:
    """As kernels.rms_norm_backward; a program takes a row."""
    rows, columns = x.shape
    _rms_norm_backward[(rows,)](
        dy, x, weight, residual, dy.stride(0), x.stride(0), residual.stride(0), eps, columns, **_row_config(columns)
    )


@triton.jit
def _rotate(
    qkv, cos, sin, stride, cos_stride, sin_stride, heads,
    HALF: tl.constexpr, SIGN: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    column = tl.arange(0, BLOCK)
    inside = column < HALF
    c = tl.load(cos + row * cos_stride + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + row * sin_stride + column, mask=inside, other=0.0).to(tl.float32)[None, :] * SIGN
    place = qkv + row * stride + head[:, None] * (2 * HALF) + column[None, :]
    mask = (head < heads)[:, None] & inside[None, :]
    first = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(place, (first * c - second * s).to(qkv.dtype.element_ty), mask=mask)
    tl.store(place + HALF, (second * c + first * s).to(qkv.dtype.element_ty), mask=mask)


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, head_dim: int, inverse: bool) -> None:
    """As kernels.rotate; a program takes 8 heads of a row."""
    half, group = head_dim // 2, 8
    _rotate[(len(qkv), triton.cdiv(heads, group))](
        qkv, cos, sin, qkv.stride(0), cos.stride(0), sin.stride(0), heads,
        HALF=half, SIGN=-1.0 if inverse else 1.0, HEADS=group, BLOCK=triton.next_power_of_2(half), num_warps=2,
    )  # fmt: skip


@triton.jit
def _swiglu(gate, up, out, gate_stride, up_stride, out_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    wide = tl.load(gate + row * gate_stride + column, mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(up + row * up_stride + column, mask=mask, other=0.0).to(tl.float32)
    product = wide * tl.sigmoid(wide) * factor
    tl.store(out + row * out_stride + column, product.to(out.dtype.element_ty), mask=mask)


def swiglu(gate: Tensor, up: Tensor, out: Tensor) -> None:
    """As kernels.swiglu; a program takes 2048 columns of a row."""
    rows, columns = gate.shape
    block = min(2048, triton.next_power_of_2(columns))
    _swiglu[(rows, triton.cdiv(columns, block))](
        gate, up, out, gate.stride(0), up.stride(0), out.stride(0), columns, BLOCK=block, num_warps=4
    )


@triton.jit
def _swiglu_backward(gate, up, dh, gate_stride, up_stride, dh_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    gate_place, up_place = gate + row * gate_stride + column, up + row * up_stride + column
    wide = tl.load(gate_place, mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(up_place, mask=mask, other=0.0).to(tl.float32)
    above = tl.load(dh + row * dh_stride + column, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(wide)
    slope = sigmoid * (1 + wide * (1 - sigmoid))
    tl.store(gate_place, (above * factor * slope).to(gate.dtype.element_ty), mask=mask)
    tl.store(up_place, (above * wide * sigmoid).to(up.dtype.element_ty), mask=mask)


def swiglu_backward(gate: Tensor, up: Tensor, dh: Tensor) -> None:
    """As kernels.swiglu_backward; a program takes 2048 columns of a row."""
    rows, columns = gate.shape
    block = min(2048, triton.next_power_of_2(columns))
    _swiglu_backward[(rows, triton.cdiv(columns, block))](
        gate, up, dh, gate.stride(0), up.stride(0), dh.stride(0), columns, BLOCK=block, num_warps=4
    )


@triton.jit
def _cross_entropy(
    logits, targets, scale, nll, first, stride, columns,
    FIRST: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Largest logit and sum of exponentials in one pass over the row, the gradient in a second one (from the L2)."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    counts = target >= 0
    target = tl.maximum(target, 0)
    base = logits + row * stride
    own = tl.load(base + target).to(tl.float32)
    largest = tl.full((), -1e30, tl.float32)
    total = tl.full((), 0.0, tl.float32)
    beaten = tl.zeros([BLOCK], tl.int32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        wide = tl.load(base + column, mask=column < columns, other=float("-inf")).to(tl.float32)
        above = tl.maximum(largest, tl.max(wide, 0))
        total = total * tl.exp(largest - above) + tl.sum(tl.exp(wide - above), 0)
        largest = above
        if FIRST:
            beaten |= ((wide > own) | ((wide == own) & (column < target))).to(tl.int32)
    tl.store(nll + row, tl.where(counts, (largest - own) + tl.log(total), 0.0))
    if FIRST:
        tl.store(first + row, counts & (tl.max(beaten, 0) == 0))
    if GRADIENT:
        factor = tl.where(counts, tl.load(scale), 0.0)
        for start in range(0, columns, BLOCK):
            column = start + tl.arange(0, BLOCK)
            mask = column < columns
            wide = tl.load(base + column, mask=mask, other=float("-inf")).to(tl.float32)
            softmax = tl.exp(wide - largest) / total
            gradient = tl.where(column == target, softmax - 1.0, softmax) * factor
            tl.store(base + column, gradient.to(logits.dtype.element_ty), mask=mask)


def cross_entropy(
    logits: Tensor, targets: Tensor, scale: Tensor, nll: Tensor, first: Tensor | None, gradient: bool
) -> None:
    """As kernels.cross_entropy; a program takes a row, 4096 columns at a time."""
    rows, columns = logits.shape
    block = min(4096, triton.next_power_of_2(columns))
    _cross_entropy[(rows,)](
        logits, targets, scale, nll, nll if first is None else first, logits.stride(0), columns,
        FIRST=first is not None, GRADIENT=gradient, BLOCK=block, num_warps=8,
    )  # fmt: skip


@triton.jit
def _embed(ids, table, out, table_stride, out_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    source = tl.load(ids + row).to(tl.int64)
    tl.store(out + row * out_stride + column, tl.load(table + source * table_stride + column, mask=mask), mask=mask)


def embed(ids: Tensor, table: Tensor, out: Tensor) -> None:
    """As kernels.embed. Triton's launcher turns the address of pinned host memory into the card's own for it."""
    rows, columns = out.shape
    block = min(1024, triton.next_power_of_2(columns))
    _embed[(rows, triton.cdiv(columns, block))](
        ids, table, out, table.stride(0), out.stride(0), columns, BLOCK=block, num_warps=4
    )
