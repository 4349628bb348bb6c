"""Which examples meet in which step, and how they become tensors. Pure functions of the seed: nothing to save.

A row of a batch holds one example, padded, or with packing as many as fit. There is no attention mask: `positions`
start at 0 in every example, by which transformers keeps the examples of a row apart (`masking_utils.py`,
`find_packed_sequence_indices`), and padding lies behind all tokens, where causal attention does not look.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medmind_train.examples import Example
from medmind_train.packing import pack

if TYPE_CHECKING:
    import torch

_WINDOW = 8
"""Effective batches that are sorted by length together: less padding, and still a shuffled order."""
_MULTIPLE = 8
"""Batches are padded to a multiple of this many tokens, as matrix units like it."""


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        ids: `[batch, length]` int64 token ids, padded on the right.
        positions: `[batch, length]` int64, from 0 in each example; padding counts on from the example before it.
        supervised: `[batch, length]` bool, true on the tokens whose probability counts.
        owners: `[batch, length]` int64, the place in `rows` of the example a token belongs to; -1 on padding.
        rows: ids of the rows, one per example.
    """

    ids: "torch.Tensor"
    positions: "torch.Tensor"
    supervised: "torch.Tensor"
    owners: "torch.Tensor"
    rows: tuple[str, ...]

    def to(self, device: str) -> "Batch":
        """The same batch on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("ids", "positions", "supervised", "owners")}
        return replace(self, **tensors)


def supervised_tokens(rows: Sequence[Sequence[Example]]) -> int:
    """How many tokens the loss is over."""
    return sum(len(example.ids) - example.answer for row in rows for example in row)


def real_tokens(rows: Sequence[Sequence[Example]]) -> int:
    """How many tokens are no padding."""
    return sum(len(example.ids) for row in rows for example in row)


def epoch_steps(
    lengths: Sequence[int], *, effective: int, seed: int, epoch: int, capacity: int | None = None
) -> list[list[list[int]]]:
    """The optimizer steps of one epoch, each a list of rows, each a list of example indices.

    Depends on the effective batch (`batch × accumulate`, in rows) only, so that trading one for the other changes no
    step. The last step of an epoch may be smaller.

    Args:
        capacity: tokens of a packed row; None: one example a row.
    """
    random_source = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    random_source.shuffle(order)
    if capacity is not None:
        rows = pack(lengths, capacity, order)
        random_source.shuffle(rows)
        return [rows[at : at + effective] for at in range(0, len(rows), effective)]
    steps = []
    for start in range(0, len(order), effective * _WINDOW):
        window = sorted(order[start : start + effective * _WINDOW], key=lambda index: (-lengths[index], index))
        steps += [[[index] for index in window[at : at + effective]] for at in range(0, len(window), effective)]
    random_source.shuffle(steps)
    return steps


def collate(rows: Sequence[Sequence[Example]], pad: int, device: str, *, shape: tuple[int, int] | None = None) -> Batch:
    """Lay the examples of each row one behind the other, pad on the right and move to `device`.

    Args:
        shape: rows and tokens of the batch, at least what is needed; rows left over are all padding. None: the
            smallest that holds everything.
    """
    import torch

    longest = max(sum(len(example.ids) for example in row) for row in rows)
    size, length = shape or (len(rows), -(-longest // _MULTIPLE) * _MULTIPLE)
    ids = np.full((size, length), pad, np.int64)
    positions = np.tile(np.arange(length, dtype=np.int64), (size, 1))
    supervised = np.zeros((size, length), np.bool_)
    owners = np.full((size, length), -1, np.int64)
    names: list[str] = []
    for at, row in enumerate(rows):
        start = 0
        for example in row:
            end = start + len(example.ids)
            ids[at, start:end] = example.ids
            positions[at, start:] = np.arange(length - start)
            supervised[at, start + example.answer : end] = True
            owners[at, start:end] = len(names)
            names.append(example.row)
            start = end
    return Batch(
        ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(positions).to(device),
        supervised=torch.from_numpy(supervised).to(device),
        owners=torch.from_numpy(owners).to(device),
        rows=tuple(names),
    )


def by_length(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Batches of similar length for evaluation, longest first, each of at most `tokens` padded tokens."""
    batches: list[list[Example]] = []
    longest = 0
    for example in sorted(examples, key=lambda one: (-len(one.ids), one.row)):
        if not batches or (len(batches[-1]) + 1) * longest > tokens:
            batches.append([])
            longest = -(-len(example.ids) // _MULTIPLE) * _MULTIPLE
        batches[-1].append(example)
    return batches
