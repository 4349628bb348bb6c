"""Several processes that share one effective batch: what each takes of it, and how their sums become one.

Knows `torch.distributed`; with one process, or none set up, everything stays as it is. Losses are divided by the
supervised tokens of all processes and gradients are summed, never averaged: a mean of means weighs tokens by how many
others happen to lie in the same process.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


def world() -> tuple[int, int]:
    """This process's rank and how many processes there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share(items: Sequence[T]) -> Sequence[T]:
    """What this process takes of an effective batch; the shares of all are disjoint and cover it."""
    rank, size = world()
    return items if size == 1 else items[rank::size]


def total(value: float, device: str) -> float:
    """The sum of `value` over all processes, in float64: exact for counts below 2^53."""
    if world()[1] == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return float(tensor)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, in one message; a process without one adds nothing."""
    if world()[1] == 1:
        return
    shared = list(parameters)
    flat = torch.cat(
        [(torch.zeros_like(one) if one.grad is None else one.grad).flatten().to(torch.float32) for one in shared]
    )
    distributed.all_reduce(flat)
    start = 0
    for one in shared:
        one.grad = flat[start : start + one.numel()].view_as(one).to(one.dtype)
        start += one.numel()
