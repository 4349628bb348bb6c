"""The gradient of one optimizer step, added up over passes and processes. Knows rows and passes; no optimizer.

The loss of a step is the sum over its supervised tokens divided by their number in the whole effective batch, so that
the batch may be split in any way, over processes too, without changing the gradient.
"""

import math
from collections.abc import Iterator, Sequence

import torch

from medmind_train import distributed
from medmind_train.batches import Batch, collate, supervised_tokens
from medmind_train.examples import Example
from medmind_train.hardware import Device
from medmind_train.memory_full import MemoryFull, is_memory_full
from medmind_train.passes import Passes

Rows = Sequence[Sequence[Example]]
"""Rows of a batch, each with the examples in it."""


class NotFinite(ArithmeticError):
    """A loss or gradient that is no number, and the rows it came from."""

    def __init__(self, value: float, rows: Sequence[str], what: str = "loss") -> None:
        super().__init__(f"the {what} is {value}")
        self.rows = tuple(rows)


def backward(
    passes: Passes, rows: Rows, *, batch: int, pad: int, device: Device, length: int | None = None
) -> Iterator[tuple[float, int]]:
    """Add the gradient of one optimizer step, one pass at a time; summed over all processes at the end.

    Args:
        rows: this process's part of the effective batch; `batch` of them go through the model together.
        length: tokens of every row, and every pass is of `batch` rows; None: as long as the longest, as many as left.

    Yields:
        For each pass: its share of the step's loss (nats per supervised token of the step) and its padded tokens. That
        is read when the next pass is on its way already, so that a card never waits for its host.

    Raises:
        NotFinite: a loss that is not finite; knows the rows.
        MemoryFull: in this process or in another; the gradient is not whole.
    """
    total = distributed.total(supervised_tokens(rows), device)
    before: tuple[torch.Tensor, Batch] | None = None
    full = False
    for start in range(0, len(rows), batch):
        part = collate(rows[start : start + batch], pad, "cpu", shape=(batch, length) if length else None)
        try:
            share = passes.add_gradient(part, total)
        except (RuntimeError, MemoryError) as error:
            if not is_memory_full(error):
                raise
            full = True
            break
        if before:
            yield _read(*before)
        before = share, part
    if distributed.total(full, device):
        raise MemoryFull
    if before:
        yield _read(*before)
    distributed.sum_gradients([parameter for _, parameter in passes.named_parameters()])


def _read(share: torch.Tensor, part: Batch) -> tuple[float, int]:
    value = float(share)
    if not math.isfinite(value):
        raise NotFinite(value, part.rows)
    return value, part.ids.numel()
