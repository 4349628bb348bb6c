"""One option for each of several things, the sum of costs least, the sum of sizes within a budget. Knows no tensors.

The multiple-choice knapsack problem (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, chapter 11), by dynamic
programming over sizes in units of their common divisor: exact wherever those units are few enough, which they are for
tensors of a model, and otherwise exact for sizes rounded up to a larger unit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_UNITS = 1 << 18
"""Units of size that are told apart at most: time and memory grow with them."""


@dataclass(frozen=True)
class Option:
    """One way to store a thing: its size in bytes and what it costs in quality."""

    size: int
    cost: float


def choose(things: Sequence[Sequence[Option]], budget: int) -> list[int] | None:
    """The place of the option to take for each thing; None where even the smallest ones exceed the budget.

    The same input always gives the same answer: of options as good as each other the first is taken.
    """
    least = [min(option.size for option in options) for options in things]
    room = budget - sum(least)
    if room < 0:
        return None
    extra = [[option.size - low for option in options] for options, low in zip(things, least, strict=True)]
    room = min(room, sum(map(max, extra)))
    unit = math.gcd(*(size for sizes in extra for size in sizes)) or 1
    unit *= max(1, -(-room // (unit * _UNITS)))
    cells = room // unit + 1
    best = np.zeros(cells)
    taken = np.zeros((len(things), cells), np.uint8)
    for thing, (options, sizes) in enumerate(zip(things, extra, strict=True)):
        found = np.full(cells, np.inf)
        for place, (option, size) in enumerate(zip(options, sizes, strict=True)):
            step = -(-size // unit)
            if step >= cells:
                continue
            with_it = best[: cells - step] + option.cost
            better = with_it < found[step:]
            found[step:][better] = with_it[better]
            taken[thing, step:][better] = place
        best = found
    picks = [0] * len(things)
    cell = cells - 1
    for thing in range(len(things) - 1, -1, -1):
        picks[thing] = int(taken[thing, cell])
        cell -= -(-extra[thing][picks[thing]] // unit)
    return _fill(things, picks, budget)


def _fill(things: Sequence[Sequence[Option]], picks: list[int], budget: int) -> list[int]:
    """Spend what rounding sizes up left over: the best single change that fits, again and again."""
    left = budget - sum(options[pick].size for options, pick in zip(things, picks, strict=True))
    while True:
        changes = [
            (options[pick].cost - option.cost, -(option.size - options[pick].size), -thing, place)
            for thing, (options, pick) in enumerate(zip(things, picks, strict=True))
            for place, option in enumerate(options)
            if option.cost < options[pick].cost and option.size - options[pick].size <= left
        ]
        if not changes:
            return picks
        _, size, thing, place = max(changes)
        picks[-thing] = place
        left += size
