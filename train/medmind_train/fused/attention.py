"""Causal attention within the documents of a flattened batch, forward and backward. Knows torch's flash attention.

On a card that is the variable-length FlashAttention-2 that torch carries (arXiv:2307.08691), by the operators beneath
`scaled_dot_product_attention`, because these can be captured in a CUDA graph and give the backward pass by itself.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Documents:
    """Where the documents of a flattened batch lie.

    Attributes:
        bounds: `[documents + 1]` int32 on the device, ascending from 0 to the number of tokens; documents may be empty.
        longest: no document has more tokens than this.
    """

    bounds: torch.Tensor
    longest: int


@dataclass(frozen=True)
class Attended:
    """What the forward pass leaves for the backward pass besides queries, keys and values.

    Attributes:
        out: `[tokens, heads, head_dim]`.
        statistics: the logarithms of the softmax's sums, in the kernel's own layout, and its unused random state.
    """

    out: torch.Tensor
    statistics: tuple[torch.Tensor, ...]


def capturable(dtype: torch.dtype) -> bool:
    """Whether a CUDA graph can hold attention in this type: in fp32 there is no flash attention, the plain one runs."""
    return dtype != torch.float32


def forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents, window: int | None
) -> Attended:
    """Attend.

    Args:
        query: `[tokens, heads, head_dim]`; the last dimension is contiguous.
        key, value: `[tokens, kv_heads, head_dim]`, likewise.
        documents: tokens see those before them in their own document only, and themselves.
        window: tokens that are seen at most, the own one counted; None: all.
    """
    if query.device.type != "cuda" or not capturable(query.dtype):
        return Attended(_plain(query, key, value, documents, window), ())
    bounds, longest = documents.bounds, documents.longest
    out, logsumexp, state, unused, _ = torch.ops.aten._flash_attention_forward(
        query, key, value, bounds, bounds, longest, longest, 0.0, True, False, **_sides(window)
    )
    return Attended(out, (logsumexp, state, unused))


def backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attended: Attended,
    documents: Documents,
    window: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of queries, keys and values from that of the output, `[tokens, heads, head_dim]`."""
    if query.device.type != "cuda" or not capturable(query.dtype):
        with torch.enable_grad():
            q, k, v = (one.detach().requires_grad_(True) for one in (query, key, value))
            out = _plain(q, k, v, documents, window)
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), gradient)
        return dq, dk, dv
    bounds, longest = documents.bounds, documents.longest
    logsumexp, state, unused = attended.statistics
    gradients: Any = torch.ops.aten._flash_attention_backward(
        gradient,
        query,
        key,
        value,
        attended.out,
        logsumexp,
        bounds,
        bounds,
        longest,
        longest,
        0.0,
        True,
        state,
        unused,
        **_sides(window),
    )
    return gradients[0], gradients[1], gradients[2]


def _sides(window: int | None) -> dict[str, int]:
    return {"window_size_left": window - 1, "window_size_right": 0} if window else {}


def _plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents, window: int | None
) -> torch.Tensor:
    """Document by document, in the compute type."""
    parts = []
    bounds = documents.bounds.tolist()
    for start, end in pairwise(bounds):
        if start == end:
            continue
        q, k, v = (one[start:end].transpose(0, 1)[None] for one in (query, key, value))
        mask = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).tril()
        if window:
            mask = mask.triu(1 - window)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)
