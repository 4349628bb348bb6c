"""The functions of kernels.py as Triton kernels, for a card. Their contract stands there; here is how they are done.

Imported only where Triton is (kernels.py). `TRITON_INTERPRET=1` runs them on a CPU, for tests, but for the lookups
that are written in PTX.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import struct
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from medmind_train.fused.kernels import Nf4

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The values of the 16 codes (QLoRA, appendix E), as bitsandbytes has them; only `permute` does not read `table`."""

VARIANTS = {
    "gather": (512, 4, False),
    "gather-128x4": (128, 4, False),
    "gather-256x4": (256, 4, False),
    "gather-1024x4": (1024, 4, False),
    "gather-1024x8": (1024, 8, False),
    "gather-512x4-block": (512, 4, True),
    "gather-512x4-wide": (512, 4, False),
    "load": (512, 4, False),
    "load-1024x8": (1024, 8, False),
    "shuffle": (512, 4, False),
    "shuffle-128x4": (128, 4, False),
    "shuffle-256x4": (256, 4, False),
    "shuffle-1024x4": (1024, 4, False),
    "shuffle-512x8": (512, 8, False),
    "shuffle-1024x8": (1024, 8, False),
    "shuffle-512x4-block": (512, 4, True),
    "shuffle-1024x4-block": (1024, 4, True),
    "shuffle-512x4-wide": (512, 4, False),
    "permute": (512, 4, False),
    "permute-1024x8": (1024, 8, False),
}
"""Versions of `dequantize` by name: words of 8 weights a program takes, its warps, and whether a block's scale is read
once and handed to its 8 words, instead of by each. How a code becomes its value stands before the first dash:
`gather` from shared memory, `load` through the first-level cache, `shuffle` from another lane's register (PTX),
`permute` from constants, byte by byte (PTX)."""
DEFAULT = "gather"


def _lines(*lines: str) -> tl.constexpr:
    return tl.constexpr("{\n" + "\n".join(lines) + "\n}")


def _shuffle() -> tl.constexpr:
    """Eight values from a word ($8): lanes 0 to 15 and 16 to 31 hold the 16 values ($9), so a code is a lane."""
    lines = [".reg .b32 code;"]
    for place in range(8):
        lines += [f"shr.u32 code, $8, {4 * (place ^ 1)};", f"shfl.sync.idx.b32 ${place}, $9, code, 0x101f, 0xffffffff;"]
    return _lines(*lines)


def _permute() -> tl.constexpr:
    """Eight values from a word ($8), by prmt: four codes at a time pick each of the four bytes of their values."""
    bits = [struct.unpack("<I", struct.pack("<f", value))[0] for value in NF4]
    lines = [".reg .b32 half, low, high, from8, to8, p0, p1, p2, p3, q0, q1, q2, q3;"]
    for base in (0, 4):
        lines.append(f"shr.u32 half, $8, {4 * base};")
        lines += ["and.b32 low, half, 0x7777;", "shr.u32 high, half, 1;", "and.b32 high, high, 0x4444;"]
        lines.append("or.b32 high, high, 0x3210;")  # byte k of the values of codes 0 to 7, or of 8 to 15
        for byte in range(4):
            column = [bit >> 8 * byte & 255 for bit in bits]
            words = [int.from_bytes(bytes(column[first : first + 4]), "little") for first in range(0, 16, 4)]
            lines.append(f"prmt.b32 to8, {words[0]:#x}, {words[1]:#x}, low;")
            lines.append(f"prmt.b32 from8, {words[2]:#x}, {words[3]:#x}, low;")
            lines.append(f"prmt.b32 p{byte}, to8, from8, high;")
        lines += ["prmt.b32 q0, p0, p1, 0x5140;", "prmt.b32 q1, p0, p1, 0x7362;"]
        lines += ["prmt.b32 q2, p2, p3, 0x5140;", "prmt.b32 q3, p2, p3, 0x7362;"]
        for nibble, (low, high, order) in enumerate(
            (("q0", "q2", "0x5410"), ("q0", "q2", "0x7632"), ("q1", "q3", "0x5410"), ("q1", "q3", "0x7632"))
        ):
            lines.append(f"prmt.b32 ${base + (nibble ^ 1)}, {low}, {high}, {order};")
    return _lines(*lines)


SHUFFLE, PERMUTE = _shuffle(), _permute()
LANE = _lines(
    ".reg .u32 lane; .reg .u64 place;",
    "mov.u32 lane, %laneid; and.b32 lane, lane, 15;",
    "mul.wide.u32 place, lane, 4; add.u64 place, place, $1;",
    "ld.global.nc.f32 $0, [place];",
)


@triton.jit
def _beside(v0, v1, v2, v3, v4, v5, v6, v7):
    """[n] each -> [n, 8], all in a thread's registers."""
    even, odd = tl.join(tl.join(v0, v4), tl.join(v2, v6)), tl.join(tl.join(v1, v5), tl.join(v3, v7))
    return tl.reshape(tl.join(even, odd), [v0.shape[0], 8])


@triton.jit
def _values(bits, table, LOOKUP: tl.constexpr):
    """The fp32 values [n, 8] of the codes in words [n]; in a byte the high nibble is first."""
    if LOOKUP == "shuffle":
        address = tl.zeros_like(bits).to(tl.int64) + table.to(tl.int64)
        own = tl.inline_asm_elementwise(LANE, "=f,l", [address], dtype=tl.float32, is_pure=True, pack=1)
        v0, v1, v2, v3, v4, v5, v6, v7 = tl.inline_asm_elementwise(
            SHUFFLE, "=f,=f,=f,=f,=f,=f,=f,=f,r,f", [bits, own], dtype=(tl.float32,) * 8, is_pure=True, pack=1
        )
        values = _beside(v0, v1, v2, v3, v4, v5, v6, v7)
    elif LOOKUP == "permute":
        v0, v1, v2, v3, v4, v5, v6, v7 = tl.inline_asm_elementwise(
            PERMUTE, "=&f,=&f,=&f,=&f,=&f,=&f,=&f,=&f,r", [bits], dtype=(tl.float32,) * 8, is_pure=True, pack=1
        )
        values = _beside(v0, v1, v2, v3, v4, v5, v6, v7)
    else:
        codes = (bits[:, None] >> (4 * (tl.arange(0, 8) ^ 1))[None, :]) & 15
        if LOOKUP == "gather":
            found = tl.gather(tl.load(table + tl.arange(0, 16)), tl.reshape(codes, [bits.shape[0] * 8]), 0)
            values = tl.reshape(found, [bits.shape[0], 8])
        else:
            values = tl.load(table + codes)
    return values


@triton.jit
def _dequantize(
    packed, absmax, code, absmax2, offset, table, out, stride, first, words,
    ROW: tl.constexpr, LOOKUP: tl.constexpr, PER_BLOCK: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program takes BLOCK words of 8 weights; a row of the matrix has ROW words, a word has one scale.

    A thread reads whole words and writes 16 bytes of bf16 for each, neighbours beside it.
    """
    start = tl.program_id(0) * BLOCK
    word = start + tl.arange(0, BLOCK)
    mask = word < words
    source = first + word
    if not WIDE:
        # one word a thread and load, else Triton takes four, and moves three of them to the threads that write them
        source = tl.max_contiguous(source, 1)
    bits = tl.load(packed + source, mask=mask, other=0, eviction_policy="evict_first")
    if PER_BLOCK:
        block = (first + start) // 8 + tl.arange(0, BLOCK // 8)
        inside = block < (first + words) // 8
    else:
        block, inside = (first + word) >> 3, mask
    byte = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
    scale = tl.load(code + byte) * tl.load(absmax2 + (block >> 8), mask=inside, other=0.0) + tl.load(offset)
    if PER_BLOCK:
        scale = tl.reshape(tl.broadcast_to(scale[:, None], [BLOCK // 8, 8]), [BLOCK])
    row = word // ROW
    place = row * stride + (word - row * ROW) * 8
    values = _values(bits, table, LOOKUP) * scale[:, None]
    tl.store(out + place[:, None] + tl.arange(0, 8)[None, :], values.to(out.dtype.element_ty), mask=mask[:, None])


def dequantize(weight: "Nf4", out: Tensor, start: int, stop: int, variant: str | None) -> None:
    """As kernels.dequantize, rows start to stop. Without `variant` it is DEFAULT, of VARIANTS."""
    name = variant or DEFAULT
    block, warps, per_block = VARIANTS[name]
    row = weight.columns // 8
    words = (stop - start) * row
    # bitsandbytes rounds code * absmax2 before it adds the offset: no fused multiply-add
    _dequantize[(triton.cdiv(words, block),)](
        weight.packed.view(torch.int32), weight.absmax, weight.code, weight.absmax2, weight.offset, weight.table,
        out, out.stride(0), start * row, words,
        ROW=row, LOOKUP=name.split("-")[0], PER_BLOCK=per_block, WIDE="wide" in name, BLOCK=block,
        num_warps=warps, enable_fp_fusion=False,
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
