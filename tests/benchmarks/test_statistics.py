import math

import numpy as np
import pytest

from medmind.errors import MedmindError
from medmind_benchmarks import statistics


def test_perplexity_is_weighted_by_tokens_not_by_rows() -> None:
    found = statistics.perplexity([math.log(2) * 1, math.log(8) * 3], [1, 3])
    assert found.value == pytest.approx(2 ** (10 / 4))


def test_with_one_token_a_row_the_error_is_the_standard_error_of_a_mean() -> None:
    nll = [1.0, 2.0, 4.0, 5.0]
    found = statistics.perplexity(nll, [1, 1, 1, 1])
    assert found.value == pytest.approx(math.exp(3))
    assert found.error == pytest.approx(math.exp(3) * np.std(nll, ddof=1) / math.sqrt(4))


def test_the_error_counts_rows_not_tokens() -> None:
    few = statistics.perplexity([10.0, 20.0], [10, 10])
    split = statistics.perplexity([5.0, 5.0, 10.0, 10.0], [5, 5, 5, 5])
    assert few.value == pytest.approx(split.value)
    assert few.error is not None and split.error is not None
    assert few.error == pytest.approx(math.exp(1.5) * math.sqrt(2 * (25 + 25)) / 20)
    assert split.error < few.error


def test_a_constant_shift_has_an_exact_ratio_without_error() -> None:
    tokens = [3, 5, 9]
    reference = [4.0, 9.0, 20.0]
    shifted = [value + 0.01 * count for value, count in zip(reference, tokens, strict=True)]
    found = statistics.perplexity_ratio(shifted, reference, tokens)
    assert found.value == pytest.approx(math.exp(0.01))
    assert found.error == pytest.approx(0, abs=1e-9)


def test_difference_is_that_of_the_perplexities() -> None:
    tokens = [3, 5, 9]
    ours, theirs = [4.0, 11.0, 21.0], [4.5, 9.0, 20.0]
    found = statistics.perplexity_difference(ours, theirs, tokens)
    assert found.value == pytest.approx(
        statistics.perplexity(ours, tokens).value - statistics.perplexity(theirs, tokens).value
    )


@pytest.mark.parametrize("figure", ["perplexity", "ratio", "difference"])
def test_stated_errors_match_the_scatter_over_repeated_samples(figure: str) -> None:
    rng = np.random.default_rng(5)
    values, errors = [], []
    for _ in range(400):
        tokens = rng.integers(5, 60, 80)
        hardness = rng.normal(2, 0.4, 80)  # a row is hard or easy as a whole, for both models
        reference = tokens * hardness
        ours = tokens * (hardness + rng.normal(0.05, 0.03, 80))
        counts = tokens.tolist()
        found = {
            "perplexity": lambda a, b, n: statistics.perplexity(a, n),
            "ratio": statistics.perplexity_ratio,
            "difference": statistics.perplexity_difference,
        }[figure](ours.tolist(), reference.tolist(), counts)
        values.append(found.value)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.12)


def test_pairing_makes_the_error_smaller_than_that_of_either() -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(60, 15, 50).tolist()
    ours = [value + 1 + 0.1 * noise for value, noise in zip(reference, rng.normal(size=50), strict=True)]
    tokens = [30] * 50
    paired = statistics.perplexity_difference(ours, reference, tokens).error
    alone = statistics.perplexity(reference, tokens).error
    assert paired is not None and alone is not None
    assert paired < alone / 10


def test_one_row_has_no_error_and_no_tokens_are_refused() -> None:
    assert statistics.perplexity([3.0], [2]).error is None
    with pytest.raises(MedmindError, match="no answer token"):
        statistics.perplexity([0.0], [0])


def test_spread_is_median_and_extremes_in_the_order_taken() -> None:
    found = statistics.spread([3.0, 1.0, 9.0, 2.0])
    assert (found.median, found.low, found.high, found.samples) == (2.5, 1.0, 9.0, (3.0, 1.0, 9.0, 2.0))


@pytest.mark.parametrize(
    ("groups", "one", "two"), [(2, 6.3138, 12.7062), (3, 2.9200, 4.3027), (4, 2.3534, 3.1824), (31, 1.6973, 2.0423)]
)
def test_few_groups_reach_as_far_as_students_t(groups: int, one: float, two: float) -> None:
    """The figures are those of any printed table."""
    assert statistics.one_sided_95(groups) == pytest.approx(one, abs=1e-4)
    assert statistics.two_sided_95(groups) == pytest.approx(two, abs=1e-4)


def test_many_groups_reach_as_far_as_a_normal() -> None:
    assert statistics.two_sided_95(None) == pytest.approx(1.95996, abs=1e-5)
    assert statistics.two_sided_95(5001) == pytest.approx(1.95996, abs=1e-3)


def test_the_less_certain_of_two_errors_decides_how_many_groups_they_count_as() -> None:
    assert statistics.joint_groups((0.1, 0.1), (10, 10)) in (18, 19)
    assert statistics.joint_groups((0.1, 1e-9), (3, 1000)) == 3
    assert statistics.joint_groups((0.0, 0.0), (3, 4)) == 6


def test_an_interval_over_few_groups_holds_as_often_as_it_says() -> None:
    """Means of 4 groups with the error over them: 1.96 errors miss in one of seven, and should in one of twenty."""
    drawn = np.random.default_rng(0).normal(size=(4000, 4))
    found = [statistics.ratio_of_sums(list(row), [1] * 4) for row in drawn]
    missed = [abs(one.value) > statistics.two_sided_95(4) * (one.error or 0) for one in found]
    assert np.mean(missed) == pytest.approx(0.05, abs=0.01)
