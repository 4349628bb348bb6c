"""`medmind-bench compare`: noise is no change, a regression exits with 1, paired rows find what errors alone hide."""

import dataclasses
import json
import math
from pathlib import Path

import bench_reports as reports
import pytest
from bench_command import medmind_bench

from medmind_benchmarks.compare import Change, Limits, compare
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.statistics import Estimate


def changed(report: Report, label: str, **figures: object) -> Report:
    levels = tuple(
        dataclasses.replace(one, figures=dataclasses.replace(one.figures, **figures)) if one.label == label else one  # type: ignore[arg-type]
        for one in report.levels
    )
    return dataclasses.replace(report, levels=levels)


def of(before: Report, now: Report, figure: str, **more: object) -> Change:
    found = compare(before, now, Limits(), **more)  # type: ignore[arg-type]
    return next(one for one in found.changes if one.level == "q4_k_m" and one.figure == figure)


def level(report: Report) -> Level:
    return report.level("q4_k_m")


def rows(offset: float) -> list[dict[str, object]]:
    """Rows of very different difficulty; the offset is nearly the same in each."""
    return [
        {"row": i, "tokens": 60, "nll": {"q4_k_m": 60 * (1 + i % 7) + 60 * offset * (1 + (i % 3) / 10)}}
        for i in range(40)
    ]


def test_a_report_is_the_same_as_itself() -> None:
    found = compare(reports.full(), reports.full(), Limits())
    assert {one.verdict for one in found.changes} == {"same"} and not found.notes
    assert len(found.changes) > 50


def test_paired_rows_find_what_standard_errors_drown() -> None:
    before = reports.full()
    answers = level(before).figures.answers
    assert answers
    now = changed(
        before,
        "q4_k_m",
        answers=dataclasses.replace(answers, perplexity=Estimate(answers.perplexity.value * 1.02, 0.2)),
    )
    assert of(before, now, "perplexity").verdict == "same"
    found = of(before, now, "perplexity", rows=(rows(0), rows(math.log(1.02))))
    assert found.paired and found.verdict == "worse"
    assert found.change == pytest.approx(0.022, abs=0.001)
    slight = of(before, now, "perplexity", rows=(rows(0), rows(0.001)))
    assert slight.verdict == "within limits"
    assert of(before, now, "perplexity", rows=(rows(0), rows(-0.02))).verdict == "better"
    assert not of(before, now, "perplexity", rows=(rows(0), rows(0.02)[:-1])).paired


def test_each_figure_is_judged_in_its_own_direction() -> None:
    before = reports.full()
    slow = changed(before, "q4_k_m", generation=reports.speed(1.0, 1.5))
    assert of(before, slow, "answer speed").verdict == "worse"
    assert of(slow, before, "answer speed").verdict == "better"
    worse = changed(before, "q4_k_m", choices=(reports.choice(0.4, 80),))
    assert of(before, worse, "right, held-out answers").verdict == "worse"
    assert of(worse, before, "right, held-out answers").verdict == "better"
    far = changed(before, "q4_k_m", answers_fidelity=reports.divergence(0.1))
    assert of(before, far, "mean KL").verdict == "worse"
    tiny = changed(before, "q4_k_m", answers_fidelity=reports.divergence(1e-6))
    tinier = changed(before, "q4_k_m", answers_fidelity=reports.divergence(1e-8))
    assert of(tinier, tiny, "mean KL").verdict == "same"
    memory = dataclasses.replace(level(before).figures.memory[0], peak=2 * level(before).figures.memory[0].peak)
    assert of(before, changed(before, "q4_k_m", memory=(memory,)), "peak memory").verdict == "worse"
    assert of(before, changed(before, "q4_k_m", generation=None), "answer speed").verdict == "missing"


def test_what_cannot_be_compared_is_said_and_left_out() -> None:
    before = reports.full()
    assert before.held_out
    other = dataclasses.replace(
        before,
        held_out=dataclasses.replace(before.held_out, token_digest="sha256:9"),
        conditions=dataclasses.replace(before.conditions, cpu="Another"),
        levels=before.levels[:-1],
    )
    found = compare(before, other, Limits())
    assert len(found.notes) == 2
    assert not {"perplexity", "mean KL", "answer speed", "peak memory"} & {one.figure for one in found.changes}
    assert [(one.level, one.verdict) for one in found.regressions] == [("q2_k", "missing")]


def test_the_command_is_a_gate(tmp_path: Path) -> None:
    before = reports.full()
    now = changed(before, "q4_k_m", generation=reports.speed(1.0, 1.5))
    for name, one in (("a", before), ("b", now)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(one.to_json()), encoding="utf-8")
    same = medmind_bench("compare", tmp_path / "a", tmp_path / "a" / "report.json")
    assert same.returncode == 0 and "nothing changed beyond noise" in same.stdout
    worse = medmind_bench("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert worse.returncode == 1
    assert "1 regressions: q4_k_m answer speed" in worse.stderr
    assert json.loads(worse.stdout)["schema"] == "medmind-benchmark-comparison/1"
    assert medmind_bench("compare", tmp_path / "a", tmp_path / "b", "--speed", "90").returncode == 0
    (tmp_path / "c.json").write_text("{}", encoding="utf-8")
    bad = medmind_bench("compare", tmp_path / "a", tmp_path / "c.json")
    assert bad.returncode == 1 and len(bad.stderr.strip().splitlines()) == 1
