"""Which rows a run trains on in which step, from the first to the last. Knows examples and settings; no model.

A pure function of the examples and the seed: what a resumed run sees next needs no state.
"""

import math

from medmind_train.batches import epoch_steps
from medmind_train.examples import Example, Examples
from medmind_train.qlora_config import QloraConfig


class DataOrder:
    """The plan of a run.

    Attributes:
        total: optimizer steps in all.
        per_epoch: optimizer steps of one epoch.
    """

    def __init__(self, examples: Examples, config: QloraConfig) -> None:
        self._examples = examples
        self._config = config
        self._epoch = 0, self._steps(0)
        self.per_epoch = len(self._epoch[1])
        self.total = config.max_steps or math.ceil(config.epochs * self.per_epoch)

    def rows(self, step: int) -> list[list[Example]]:
        """The effective batch of a step (counted from 0): rows, each with the examples in it."""
        epoch, place = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._steps(epoch)
        return [[self._examples[index] for index in row] for row in self._epoch[1][place]]

    def _steps(self, epoch: int) -> list[list[list[int]]]:
        config = self._config
        return epoch_steps(
            self._examples.lengths,
            effective=config.batch * config.accumulate,
            seed=config.seed,
            epoch=epoch,
            capacity=config.context if config.packing else None,
        )
