"""Which file is picked, and how often wrongly: bounds over few rows must hold as often as they say."""

import dataclasses

import bench_reports as reports
import numpy as np
import pytest

from medmind_benchmarks import advice, markdown, pick, statistics, tables
from medmind_benchmarks.results import HeldOut
from medmind_benchmarks.statistics import Estimate

TURNS = 3000
TOLERANCE = 0.02


def ratios(rows: int, *, true: float, seed: int) -> list[Estimate]:
    """Paired ratios over rows of unlike lengths, whose true value is known."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(40, 80, (TURNS, rows))
    reference = tokens * rng.normal(2, 0.4, (TURNS, rows))
    ours = reference + tokens * (np.log(true) + rng.normal(0, 0.01, (TURNS, rows)))
    return [
        statistics.perplexity_ratio(a.tolist(), b.tolist(), n.tolist())
        for a, b, n in zip(ours, reference, tokens, strict=True)
    ]


@pytest.mark.parametrize("rows", [4, 8])
def test_intervals_over_few_rows_of_unlike_lengths_hold_the_true_ratio(rows: int) -> None:
    found = ratios(rows, true=1.01, seed=rows)
    missed = [abs(one.value - 1.01) > statistics.two_sided_95(rows) * (one.error or 0) for one in found]
    assert 0.03 < np.mean(missed) < 0.07


@pytest.mark.parametrize("rows", [8, 16])
def test_a_file_at_the_very_tolerance_is_seldom_picked(rows: int) -> None:
    whole, small = (reports.level(label, size, 8.0, change=None) for label, size in (("f16", 9), ("q4_0", 3)))
    assert small.quality
    picked = []
    for ratio in ratios(rows, true=1 + TOLERANCE, seed=rows):
        quality = dataclasses.replace(small.quality, ratio=ratio)
        level = dataclasses.replace(small, figures=dataclasses.replace(small.figures, answers=quality))
        picked.append(pick.pick([whole, level], "f16", TOLERANCE, rows).label is not None)
    assert 0.03 < np.mean(picked) < 0.07


def few(rows: int) -> reports.Report:
    levels = reports.level("f16", 900, 8.0, change=None), reports.level("q8_0", 500, 8.0, change=1e-4)
    whole = reports.report(*levels)
    held_out = HeldOut("heldout.jsonl", "sha256:1", 90, rows, rows, 100 * rows, 0, 0, "sha256:2")
    picked = pick.pick(whole.levels, "f16", TOLERANCE, rows)
    return dataclasses.replace(whole, held_out=held_out, pick=picked)


def test_too_few_rows_choose_nothing_and_the_report_says_so() -> None:
    assert few(pick.FEWEST).pick.label == "q8_0"
    report = few(pick.FEWEST - 1)
    assert report.pick.label is None and report.pick.bounds["q8_0"] < 1 + TOLERANCE
    assert "7 held-out rows are too few to choose by" in tables.verdict(report)
    assert "with 95 % confidence" not in markdown.render(report)


def test_advice_chooses_nothing_by_too_few_rows() -> None:
    needs = (reports.need(512, 900),)
    report = few(2)
    levels = tuple(
        dataclasses.replace(one, figures=dataclasses.replace(one.figures, needs=needs)) for one in report.levels
    )
    texts = [text for _, text in advice.lines(dataclasses.replace(report, levels=levels))]
    assert texts and all("too few to choose by" in text and "f16" in text for text in texts)


def test_the_page_says_how_many_rows_there_are_and_how_far_a_bound_lies() -> None:
    page = markdown.render(few(12))
    assert "The SE are of 12 rows" in page and "Student's t (degrees of freedom: 11)" in page
    assert "a bound lies 1.80 SE" in page and "less than 2.20 SE" in page
