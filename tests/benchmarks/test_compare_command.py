"""`medmind-bench compare` as a gate: what it says, refuses and exits with."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import bench_reports as reports
import pytest
from bench_changes import changed, without
from bench_command import medmind_bench

from medmind.errors import MedmindError
from medmind_benchmarks import recount
from medmind_benchmarks.compare import compare
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.results import Report
from medmind_benchmarks.verdict import Limits


def test_the_command_says_what_it_cannot_judge_and_refuses_a_size_of_zero(tmp_path: Path) -> None:
    before = reports.few()
    assert before.held_out
    held_out = dataclasses.replace(before.held_out, token_digest="sha256:9")
    levels = tuple(dataclasses.replace(one, size=0) if one.label == "q4_k_m" else one for one in before.levels)
    reports_by_name = {
        "a": before,
        "b": dataclasses.replace(before, held_out=held_out),
        "zero": dataclasses.replace(before, levels=levels),
    }
    for name, one in reports_by_name.items():
        (tmp_path / name).write_text(json.dumps(one.to_json()), encoding="utf-8")
    shown = medmind_bench("compare", tmp_path / "a", tmp_path / "b")
    assert shown.returncode == 1 and "nothing changed" not in shown.stdout
    words = " ".join(shown.stdout.split())
    assert "the held-out tokens differ" in words and "figures cannot be compared and have no verdict" in words
    assert "figures of answers cannot be compared" in shown.stderr, "a gate that compared nothing does not open"
    assert medmind_bench("compare", tmp_path / "a", tmp_path / "b", "--allow-incomparable").returncode == 0
    gone = without(before, choices=())
    (tmp_path / "gone").write_text(json.dumps(gone.to_json()), encoding="utf-8")
    missed = medmind_bench("compare", tmp_path / "a", tmp_path / "gone")
    assert missed.returncode == 1 and missed.stderr.rstrip().endswith("and 1 more — measure again what is missing")
    for pair in (("zero", "a"), ("a", "zero")):
        refused = medmind_bench("compare", *(tmp_path / name for name in pair))
        (line,) = refused.stderr.splitlines()
        assert refused.returncode == 1 and "q4_k_m: its file size is 0 in the" in line


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
    shown = medmind_bench("compare", tmp_path / "b", tmp_path / "a").stdout
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
    assert json.loads(worse.stdout)["schema"] == "medmind-benchmark-comparison/4"
    assert medmind_bench("compare", tmp_path / "a", tmp_path / "b", "--speed", "90").returncode == 0
    (tmp_path / "c.json").write_text("{}", encoding="utf-8")
    bad = medmind_bench("compare", tmp_path / "a", tmp_path / "c.json")
    assert bad.returncode == 1 and len(bad.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_refused(value: float) -> None:
    document = json.loads(json.dumps(reports.few().to_json()))
    document["levels"][2]["figures"]["answers_fidelity"]["same_top"]["value"] = value
    with pytest.raises(MedmindError, match=r"same_top\.value is (nan|inf)"):
        Report.from_json(document)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("answers_fidelity", {"same_top": {"value": 0.9, "error": -1.0}}, "a standard error of -1 is none"),
        ("load_seconds", {"mean": 1.0, "deviation": None, "samples": []}, "it has no samples"),
        ("load_seconds", {"mean": 1.0, "deviation": -1.0, "samples": [1.0, 1.0]}, "no deviation of -1"),
        ("load_seconds", {"mean": 1.0, "deviation": 0.1, "samples": [1.0]}, "no deviation of 0.1"),
    ],
)
def test_what_no_repetitions_come_to_is_refused(text: str, field: dict[str, object], value: str) -> None:
    document = json.loads(json.dumps(reports.full().to_json()))
    document["levels"][2]["figures"][text] = {**(document["levels"][2]["figures"][text] or {}), **field}
    with pytest.raises(MedmindError, match=value):
        Report.from_json(document)


def test_two_levels_of_one_name_and_records_without_their_figures_are_refused(tmp_path: Path) -> None:
    report = reports.full()
    with pytest.raises(MedmindError, match="two levels of the name f16"):
        compare(report, dataclasses.replace(report, levels=(report.levels[0], *report.levels)), Limits())
    with pytest.raises(MedmindError, match=r"records beside .* are damaged"):
        recount.demand(tmp_path, report, Beside(rows=[{"row": 1}]))


def test_reports_of_the_schemas_before_are_read_without_what_they_did_not_say() -> None:
    made = reports.full()
    whole = dataclasses.replace(made, conditions=dataclasses.replace(made.conditions, memory_as_chat=False))
    assert whole.levels[0].gaps
    document = {**whole.to_json(), "schema": "medmind-benchmark-quants/5"}
    del document["conditions"]["memory_as_chat"]
    assert Report.from_json(document) == whole
    document["schema"] = "medmind-benchmark-quants/4"
    del document["conditions"]["flash"]
    assert Report.from_json(document) == whole
    document["schema"] = "medmind-benchmark-quants/3"
    for level in document["levels"]:
        for gap in level["gaps"]:
            del gap["cause"]
    assert Report.from_json(document) == whole
    del document["beside"]
    assert Report.from_json({**document, "schema": "medmind-benchmark-quants/2"}) == whole
    for broken in ({}, {"conditions": 3}, {"levels": 3}, {"levels": [3]}, {"levels": [{"gaps": [3]}]}):
        with pytest.raises(MedmindError):
            Report.from_json({"schema": "medmind-benchmark-quants/3", **broken})


def test_costs_with_another_attention_are_not_compared() -> None:
    chats = reports.full()

    def lost(before: Report, **changed: Any) -> list[str]:
        now = dataclasses.replace(before, conditions=dataclasses.replace(before.conditions, **changed))
        return [note.rpartition(": ")[2] for note in compare(before, now, Limits()).notes if "attention" in note]

    tools = dataclasses.replace(chats, conditions=dataclasses.replace(chats.conditions, memory_as_chat=False))
    assert lost(tools, flash=False) == ["memory and speed are not compared"]
    assert lost(tools, memory_as_chat=True) == ["memory is not compared"]
    assert lost(chats, flash=False) == [
        "speed is not compared"
    ]  # memory is measured with what chat chooses, by threads
    assert lost(chats, threads=8) == ["memory and speed are not compared"]
