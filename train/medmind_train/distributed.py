"""Several processes that share one effective batch: what each takes of it, and how their sums become one.

Knows `torch.distributed`; with one process, or none set up, everything stays as it is. Losses are divided by the
supervised tokens of all processes and gradients are summed, never averaged: a mean of means weighs tokens by how many
others happen to lie in the same process. What the processes say to each other besides goes over the CPU (gloo), where
no card has to be waited for.
"""

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")
_MESSAGE = 1 << 22
"""Numbers of small gradients that are summed in one message; larger gradients go by themselves, where they lie."""


class PeerLost(Exception):
    """Another process of the run has gone, and nothing can be summed any more."""


def world() -> tuple[int, int]:
    """This process's rank and how many processes there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return world()[0] == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """What this process takes of an effective batch; the shares of all are disjoint and cover it."""
    rank, size = world()
    return items if size == 1 else items[rank::size]


def rows_a_pass(batch: int, accumulate: int) -> int:
    """Rows that go through the model together: as the settings say, but no more than a process's share."""
    return min(batch, -(-batch * accumulate // world()[1]))


def totals(*values: float) -> tuple[float, ...]:
    """The sums of values over all processes, in float64: exact for counts below 2^53, and the same bits in each."""
    if world()[1] == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    with _lost():
        distributed.all_reduce(tensor)
    return tuple(tensor.tolist())


def extremes(value: int) -> tuple[int, int]:
    """The smallest and the largest of a number below 2^53 over all processes."""
    found = [int(one) for one in gathered(value)]
    return min(found), max(found)


def gathered(value: T) -> list[T]:
    """What every process gives, by rank."""
    size = world()[1]
    if size == 1:
        return [value]
    found: list[Any] = [None] * size
    with _lost():
        distributed.all_gather_object(found, value)
    return found


def of_first(value: T) -> T:
    """What the first process gives."""
    if world()[1] == 1:
        return value
    box = [value]
    with _lost():
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Make every gradient its sum over all processes, where it lies; a process without one adds nothing."""
    if world()[1] == 1:
        return
    gradients: list[torch.Tensor] = []
    for one in parameters:
        if one.grad is None:
            one.grad = torch.zeros_like(one)
        gradients.append(one.grad)
    with _lost():
        for message in _messages(gradients):
            if len(message) == 1 and message[0].dtype == torch.float32 and message[0].is_contiguous():
                distributed.all_reduce(message[0])
                continue
            flat = torch.cat([one.flatten().to(torch.float32) for one in message])
            distributed.all_reduce(flat)
            start = 0
            for gradient in message:
                gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
                start += gradient.numel()


def _messages(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The gradients in order, small ones together."""
    message: list[torch.Tensor] = []
    for one in gradients:
        if message and sum(other.numel() for other in message) + one.numel() > _MESSAGE:
            yield message
            message = []
        message.append(one)
    if message:
        yield message


def refuse_lost(error: BaseException) -> None:
    """Raise PeerLost where a pass over pieces of a model failed because another process has gone."""
    if isinstance(error, distributed.DistError) or "gloo" in str(error):
        with _lost():
            raise error


@contextmanager
def _lost() -> Iterator[None]:
    """gloo and NCCL say in their own words that a connection has been closed, or that nobody came for too long."""
    try:
        yield
    except RuntimeError as error:
        # A launcher kills the others when one has gone; all that is left to do here is to say so, and how to go on.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise PeerLost(str(error)) from error
