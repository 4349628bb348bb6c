"""The candidates of a search: what is tried, drawn by the seed alone. Knows ranges; trains nothing."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from medmind_train.search.config import COMPARED, TARGETS, SearchConfig
from medmind_train.search.cost import Matrices

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """One choice of what a search chooses.

    Attributes:
        number: from 1; 1 is the settings as given, unless targets are compared.
        trained: weights of its adapter.
        group: candidates of one group compete with each other only; empty: all do.
    """

    number: int
    lr: float
    rank: int
    alpha: float
    targets: str
    trained: int
    group: str = ""

    def settings(self) -> dict[str, Any]:
        """What of a run's settings it decides."""
        return {"lr": self.lr, "rank": self.rank, "alpha": self.alpha, "targets": self.targets}

    def __str__(self) -> str:
        """As `lr 4e-4, rank 16, alpha 32, all-linear`."""
        return f"lr {self.lr:.3g}, rank {self.rank}, alpha {self.alpha:g}, {self.targets}"


def targets(config: SearchConfig) -> tuple[str, ...]:
    """The targets that are tried."""
    return tuple(config.try_targets or (COMPARED if config.compare == "targets" else TARGETS))


def propose(config: SearchConfig, matrices: Matrices, count: int) -> list[Candidate]:
    """`count` candidates, at least one of each target where targets are compared.

    Learning rates are log-uniform, one from each of as many equal parts of the range (Latin hypercube); ranks, alphas
    and targets take turns in shuffled order, so that each value is tried about equally often.
    """
    if config.compare == "targets":
        return _compared(config, matrices, count)
    source = random.Random(f"{config.seed}/search")
    drawn = count - 1
    low, high = (math.log(rate) for rate in config.rates)
    rates = [math.exp(low + (high - low) * (part + source.random()) / max(drawn, 1)) for part in range(drawn)]
    source.shuffle(rates)
    ranks, alphas = _turns(source, config.try_ranks, drawn), _turns(source, config.try_alphas, drawn)
    wanted = _turns(source, targets(config), drawn)
    choices = [(config.lr, config.rank, config.alpha, config.targets)]
    choices += [
        (float(f"{rate:.2g}"), rank, ratio * rank, names)
        for rate, rank, ratio, names in zip(rates, ranks, alphas, wanted, strict=True)
    ]
    return [
        Candidate(number, lr, rank, alpha, names, matrices.trained(names, rank, dora=config.dora))
        for number, (lr, rank, alpha, names) in enumerate(choices, 1)
    ]


def _compared(config: SearchConfig, matrices: Matrices, count: int) -> list[Candidate]:
    """Each target at a rank at which it trains as many weights as the last one at `rank`, and at the same rates."""
    wanted = targets(config)
    whole = matrices.trained(wanted[-1], config.rank)
    each = max(1, count // len(wanted))
    low, high = config.rates
    rates = [config.lr] if each == 1 else [low * (high / low) ** (at / (each - 1)) for at in range(each)]
    found: list[Candidate] = []
    for names in wanted:
        rank = max(1, round(whole / matrices.trained(names, 1)))
        trained = matrices.trained(names, rank, dora=config.dora)
        alpha = config.alpha / config.rank * rank
        found += [
            Candidate(len(found) + at, float(f"{lr:.2g}"), rank, alpha, names, trained, names)
            for at, lr in enumerate(rates, 1)
        ]
    return found


def _turns(source: random.Random, values: Sequence[T], count: int) -> list[T]:
    """`count` values, each about equally often, in shuffled order."""
    turns: list[T] = []
    while len(turns) < count:
        turns += source.sample(list(values), len(values))
    turns = turns[:count]
    source.shuffle(turns)
    return turns
