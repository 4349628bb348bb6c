import math
import random

import pytest

from medmind_train.evaluate import choose_rows, estimate
from medmind_train.examples import Example


def test_perplexity_weighs_tokens_and_not_rows():
    measured = estimate([10.0, 2.0], [5, 1])
    assert measured.nll == pytest.approx(2.0) and measured.value == pytest.approx(math.exp(2.0))
    assert (measured.tokens, measured.rows) == (6, 2)


def test_standard_error_is_that_of_resampling_rows():
    source = random.Random(4)
    counts = [source.randint(5, 200) for _ in range(150)]
    sums = [count * source.gauss(2.0, 0.5) for count in counts]
    resampled = []
    for _ in range(800):
        drawn = [source.randrange(len(sums)) for _ in sums]
        resampled.append(math.exp(sum(sums[at] for at in drawn) / sum(counts[at] for at in drawn)))
    mean = sum(resampled) / len(resampled)
    spread = math.sqrt(sum((value - mean) ** 2 for value in resampled) / (len(resampled) - 1))
    assert estimate(sums, counts).error == pytest.approx(spread, rel=0.12)


def test_single_row_has_no_standard_error_to_show():
    assert estimate([3.0], [3]).error == 0.0


def test_rows_to_evaluate_are_the_same_ones_in_any_order_and_keep_all_their_turns():
    examples = [Example(str(row), (1, 2, turn), 1, True) for row in range(20) for turn in range(2)]
    rows = [str(row) for row in range(20)]
    chosen = choose_rows(examples, rows, 5)
    assert len(chosen) == 10
    again = choose_rows(examples[::-1], rows[::-1], 5)
    assert {example.row for example in again} == {example.row for example in chosen}
    assert choose_rows(examples, rows, 0) == examples


def test_rows_to_evaluate_are_those_that_the_benchmark_measures():
    from medmind_benchmarks import examples as bench

    rows = [{"id": f"row {number}", "messages": []} for number in range(50)]
    examples = [Example(str(row["id"]), (1, 2), 1, True) for row in rows]
    chosen = [rows[place]["id"] for place in bench.choose(rows, 7)]
    assert [example.row for example in choose_rows(examples, [str(row["id"]) for row in rows], 7)] == chosen
