"""How much a model of some size is scored on where the user does not say."""

from dataclasses import replace

import pytest

from medmind_benchmarks import effort
from medmind_benchmarks.config import QUICK, QuantsConfig

USUAL = QuantsConfig()


def counts(config: QuantsConfig) -> tuple[int, int, int]:
    return config.rows, config.chunks, config.most_questions


def test_a_small_model_is_scored_on_all_and_nothing_is_said() -> None:
    assert effort.fit(USUAL, 19_500_000) == (USUAL, "")


def test_a_large_model_is_scored_on_fewer_down_to_those_of_quick_and_a_line_says_so() -> None:
    config, line = effort.fit(USUAL, 7_250_000_000)
    assert counts(config) == counts(QUICK)
    assert "7.2 billion parameters" in line and "32 rows, 8 chunks of raw text, 20 questions" in line
    assert "instead of 128, 32, 100" in line and "--rows, --chunks, --most-questions set them" in line
    between = effort.fit(USUAL, 100_000_000)[0]
    assert counts(between) == (64, 16, 50)


def test_what_the_user_gave_stays_and_what_is_not_measured_is_not_spoken_of() -> None:
    asked = replace(USUAL, rows=500, asked=frozenset({"rows"}), measure=("answers", "choices"))
    config, line = effort.fit(asked, 7_250_000_000)
    assert counts(config) == (500, USUAL.chunks, QUICK.most_questions)
    assert "rows" not in line.replace("--", "") and "chunks" not in line


@pytest.mark.parametrize("config", [QUICK, replace(USUAL, measure=("memory", "speed"))])
def test_nothing_is_left_to_reduce(config: QuantsConfig) -> None:
    assert effort.fit(config, 70_000_000_000) == (config, "")
