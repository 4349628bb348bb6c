"""The gradient of one optimizer step, added up over passes and processes. Knows rows and passes; no optimizer.

The loss of a step is the sum over its supervised tokens divided by their number in the whole effective batch, so that
the batch may be split in any way, over processes too, without changing the gradient.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from medmind_train import agreement, distributed
from medmind_train.batches import Batch, collate, supervised_tokens
from medmind_train.examples import Example
from medmind_train.memory_full import MemoryFull, is_memory_full
from medmind_train.passes import Passes

Rows = Sequence[Sequence[Example]]
"""Rows of a batch, each with the examples in it."""


class NotFinite(ArithmeticError):
    """A loss or gradient that is no number, and the rows it came from."""

    def __init__(self, value: float, rows: Sequence[str], what: str = "loss") -> None:
        super().__init__(f"the {what} is {value}")
        self.rows = tuple(rows)
        self._made_of = value, tuple(rows), what

    def __reduce__(self) -> tuple[type["NotFinite"], tuple[float, tuple[str, ...], str]]:
        """It goes from process to process."""
        return type(self), self._made_of


def backward(
    passes: Passes,
    rows: Rows,
    *,
    batch: int,
    pad: int,
    length: int | None = None,
    stop: Callable[[], bool] = bool,
) -> tuple[float, int] | None:
    """Add the gradient of one optimizer step, one pass at a time; summed over all processes at the end.

    Args:
        rows: the effective batch; this process takes its share, of which `batch` rows go through the model together.
        length: tokens of every row, and every pass is of `batch` rows; None: as long as the longest, as many as left.
        stop: asked after each pass; after the last one where passes are made side by side.

    Returns:
        The step's loss (nats per supervised token) and padded tokens, over all processes; None when one was to stop.

    Raises:
        NotFinite: a loss that is not finite, in this process or in another; knows the rows.
        MemoryFull: in this process or in another; the gradient is not whole.
    """
    supervised = supervised_tokens(rows)

    def lay(some: Rows) -> Batch:
        return collate(some, pad, "cpu", shape=(batch, length) if length else None)

    own, failure = _Own(), None
    try:
        (_side_by_side if passes.lockstep else _alone)(own, passes, rows, supervised, batch, lay, stop)
    except BaseException as error:  # the other processes are to hear of it, whatever it is
        if passes.lockstep and not isinstance(error, NotFinite):
            raise  # they are in the middle of a pass, and hear of it by this one's end
        failure = error
    whole, tokens, ended, tight = agreement.totals(failure, own.loss, own.padded, own.stopped, own.full)
    if ended:
        return None
    if tight:
        raise MemoryFull
    distributed.sum_gradients([parameter for _, parameter in passes.named_parameters()])
    return whole, int(tokens)


@dataclass
class _Own:
    """What this process's passes have come to."""

    loss: float = 0.0
    padded: int = 0
    stopped: bool = False
    full: bool = False


def _alone(
    own: _Own,
    passes: Passes,
    rows: Rows,
    supervised: int,
    batch: int,
    lay: Callable[[Rows], Batch],
    stop: Callable[[], bool],
) -> None:
    """The passes over this process's share, at its own pace."""
    mine = distributed.share(rows)
    before: tuple[torch.Tensor, Batch] | None = None
    for start in range(0, len(mine), batch):
        part = lay(mine[start : start + batch])
        try:
            share = passes.add_gradient(part, supervised)
        except (RuntimeError, MemoryError) as error:
            if not is_memory_full(error):
                raise
            own.full = True
            return
        own.padded += part.ids.numel()
        # The loss is read when the next pass is on its way already, so that a card never waits for its host.
        if before:
            own.loss += _read(*before)
        before = share, part
        own.stopped = stop()
        if own.stopped:
            break
    if before:
        own.loss += _read(*before)


def _side_by_side(
    own: _Own,
    passes: Passes,
    rows: Rows,
    supervised: int,
    batch: int,
    lay: Callable[[Rows], Batch],
    stop: Callable[[], bool],
) -> None:
    """The same where every process has to make as many passes as the one that has the most to do."""
    mine = distributed.share(rows)
    done = []
    for start in range(0, -(-len(rows) // distributed.world()[1]), batch):
        if chosen := mine[start : start + batch]:
            part = lay(chosen)
            done.append((passes.add_gradient(part, supervised), part))
            own.padded += part.ids.numel()
        else:
            passes.add_gradient(lay(rows[:1]), math.inf)  # adds nothing; the others wait for it
    for share, part in done:
        own.loss += _read(share, part)
    own.stopped = stop()


def _read(share: torch.Tensor, part: Batch) -> float:
    value = float(share)
    if not math.isfinite(value):
        raise NotFinite(value, part.rows)
    return value
