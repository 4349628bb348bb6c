"""The knapsack against all combinations, and at the scale of a 7B."""

import itertools
import time

import numpy as np
import pytest

from medmind_convert import knapsack
from medmind_convert.knapsack import Option, choose


def instance(seed: int, things: int, options: int) -> list[list[Option]]:
    rng = np.random.default_rng(seed)
    sizes, costs = rng.integers(1, 60, (things, options)), rng.random((things, options))
    return [
        [Option(int(size), float(cost)) for size, cost in zip(*each, strict=True)]
        for each in zip(sizes, costs, strict=True)
    ]


def total(things: list[list[Option]], picks: list[int] | tuple[int, ...]) -> tuple[int, float]:
    taken = [options[pick] for options, pick in zip(things, picks, strict=True)]
    return sum(option.size for option in taken), sum(option.cost for option in taken)


@pytest.mark.parametrize("seed", range(12))
def test_no_combination_within_the_budget_is_better(seed: int):
    things = instance(seed, 5, 4)
    budget = 60 + 13 * seed
    fitting = [
        cost
        for picks in itertools.product(range(4), repeat=5)
        for size, cost in [total(things, picks)]
        if size <= budget
    ]
    found = choose(things, budget)
    assert (found is None) == (not fitting)
    if found is not None:
        size, cost = total(things, found)
        assert size <= budget
        assert cost == pytest.approx(min(fitting))


def test_a_budget_below_the_smallest_has_no_answer():
    things = [[Option(5, 0.1), Option(3, 0.5)], [Option(4, 0.0)]]
    assert choose(things, 6) is None
    assert choose(things, 7) == [1, 0]
    assert choose(things, 9) == [0, 0]


@pytest.mark.parametrize("units", [knapsack._UNITS, 1 << 12])
def test_the_budget_of_a_7b_is_spent_to_a_thousandth(units: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(knapsack, "_UNITS", units)
    bits = (2.625, 3.0625, 3.4375, 4.25, 4.5, 5.5, 6.5625, 8.5)
    shapes = [(32768, 4096)] * 2
    layer = [(4096, 4096)] * 2 + [(1024, 4096)] * 2 + [(14336, 4096)] * 3
    shapes += layer * 32
    rng = np.random.default_rng(1)
    things = [
        [Option(int(rows * columns * bit / 8), scale * 4.0**-bit) for bit in bits]
        for (rows, columns), scale in zip(shapes, rng.lognormal(0, 1, len(shapes)), strict=True)
    ]
    budget = int(4.5 * sum(rows * columns for rows, columns in shapes) / 8)
    began = time.process_time()
    picks = choose(things, budget)
    assert time.process_time() - began < 20
    assert picks is not None
    size, cost = total(things, picks)
    assert 0.999 * budget < size <= budget
    flat, _ = total(things, [bits.index(4.5)] * len(things)), None
    assert cost < 0.9 * flat[1]
    assert picks == choose(things, budget)
