"""Which examples meet in which step, and how they become tensors. Pure functions of the seed: nothing to save.

Masks are made from positions: the value of a pad token does not matter.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medmind_train.encoding import Example

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
        attention: `[batch, length]` int64, 1 on real tokens.
        supervised: `[batch, length]` bool, true on the tokens whose probability counts.
        rows: ids of the rows, one per example.
    """

    ids: "torch.Tensor"
    attention: "torch.Tensor"
    supervised: "torch.Tensor"
    rows: tuple[str, ...]


def supervised_tokens(examples: Sequence[Example]) -> int:
    """How many tokens the loss is over."""
    return sum(len(example.ids) - example.answer for example in examples)


def epoch_steps(lengths: Sequence[int], *, effective: int, seed: int, epoch: int) -> list[list[int]]:
    """The optimizer steps of one epoch, each a list of example indices.

    Depends on the effective batch (`batch × accumulate`) only, so that trading one for the other changes no step. The
    last step of an epoch may be smaller.
    """
    random_source = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    random_source.shuffle(order)
    steps = []
    for start in range(0, len(order), effective * _WINDOW):
        window = sorted(order[start : start + effective * _WINDOW], key=lambda index: (-lengths[index], index))
        steps += [window[at : at + effective] for at in range(0, len(window), effective)]
    random_source.shuffle(steps)
    return steps


def collate(examples: Sequence[Example], pad: int, device: str) -> Batch:
    """Pad examples on the right to one length and move them to `device`."""
    import torch

    longest = max(len(example.ids) for example in examples)
    length = -(-longest // _MULTIPLE) * _MULTIPLE
    ids = torch.full((len(examples), length), pad, dtype=torch.int64)
    attention = torch.zeros((len(examples), length), dtype=torch.int64)
    supervised = torch.zeros((len(examples), length), dtype=torch.bool)
    for at, example in enumerate(examples):
        ids[at, : len(example.ids)] = torch.tensor(example.ids, dtype=torch.int64)
        attention[at, : len(example.ids)] = 1
        supervised[at, example.answer : len(example.ids)] = True
    return Batch(
        ids.to(device), attention.to(device), supervised.to(device), tuple(example.row for example in examples)
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
