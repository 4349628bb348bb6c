"""The batches of a measurement: random tokens of one shape, or rows of real data, packed or padded. Knows no model."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from medmind.base import Base
from medmind.errors import MedmindError
from medmind_train.step.config import StepConfig

if TYPE_CHECKING:
    from medmind_train.batches import Batch
    from medmind_train.examples import Example, Examples

_FIRST = 3
"""Random tokens begin behind unk, bos and eos."""


@dataclass(frozen=True)
class Fed:
    """A batch in host memory.

    Attributes:
        tokens, real, supervised: positions, those that are no padding, those the loss is over.
    """

    batch: "Batch"
    tokens: int
    real: int
    supervised: int


def batches(config: StepConfig, base: Base, vocabulary: int) -> list[Fed]:
    """One batch for each step, the warm-up first.

    Raises:
        MedmindError: data or tokenizer that do not serve.
    """
    count = config.warmup + config.steps
    rows = _random(config, vocabulary, count) if config.data is None else _data(config, base, vocabulary, count)
    # Padded rows are as long as the longest of their batch, as the usual trainer's collator makes them.
    fixed = config.data is None or config.packing
    return [_fed(step, (config.batch, config.length) if fixed else None) for step in rows]


def _fed(rows: "Sequence[Sequence[Example]]", shape: tuple[int, int] | None) -> Fed:
    from medmind_train.batches import collate, real_tokens, supervised_tokens

    batch = collate(rows, 0, "cpu", shape=shape)
    return Fed(batch, batch.ids.numel(), real_tokens(rows), supervised_tokens(rows))


def _random(config: StepConfig, vocabulary: int, count: int) -> "list[list[list[Example]]]":
    """Rows filled to the end; every token is supervised but a document's first, which nothing predicts."""
    import numpy as np

    from medmind_train.examples import Example

    source = np.random.default_rng(config.seed)
    edges = [config.length * part // config.documents for part in range(config.documents + 1)]
    steps = []
    for _ in range(count):
        ids = source.integers(min(_FIRST, vocabulary - 1), vocabulary, (config.batch, config.length))
        steps.append(
            [
                [Example("random", tuple(row[start:end].tolist()), 1, True) for start, end in pairwise(edges)]
                for row in ids
            ]
        )
    return steps


def _data(config: StepConfig, base: Base, vocabulary: int, count: int) -> "list[list[list[Example]]]":
    from medmind_train import batches as layout
    from medmind_train import encoding, prepared_cache, token_cache
    from medmind_train.data import HELDOUT_SHARE

    prepared = prepared_cache.prepare(str(config.data), heldout_share=HELDOUT_SHARE, limit=None, recorded=())
    tokenizer = encoding.load_tokenizer(base.path, base.name)
    digest = f"training {prepared.digest}"
    found = token_cache.encode(tokenizer, base.path, prepared.train, digest, context=config.length, system="").examples
    if not found:
        raise MedmindError(f"no row of {config.data} fits {config.length} tokens", "give a longer --length")
    if (largest := int(found.arrays.ids.max())) >= vocabulary:
        raise MedmindError(
            f"the tokenizer of {base.name} gives the id {largest}, its vocabulary is {vocabulary}",
            "give the --tokenizer that belongs to this shape",
        )
    steps: list[list[list[int]]] = []
    epoch = 0
    while len(steps) < count:
        if config.packing:
            made = layout.epoch_steps(
                found.lengths, effective=config.batch, seed=config.seed, epoch=epoch, capacity=config.length
            )
        else:
            made = _shuffled(found, config, epoch)
        # A step of an epoch's left-overs would be of another shape; data with no full step is taken as it is.
        steps += [step for step in made if len(step) == config.batch] or made
        epoch += 1
    return [[[found[index] for index in row] for row in step] for step in steps[:count]]


def _shuffled(found: "Examples", config: StepConfig, epoch: int) -> list[list[list[int]]]:
    """One example a row in random order, as the usual trainer takes them: not sorted by length."""
    order = list(range(len(found)))
    random.Random(f"{config.seed}/{epoch}").shuffle(order)
    return [[[index] for index in order[at : at + config.batch]] for at in range(0, len(order), config.batch)]
