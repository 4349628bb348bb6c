"""What a quantized KV cache costs, beside the 16-bit one of the same file."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from bench_command import medmind_bench

from medmind.artifacts import HELDOUT
from medmind_benchmarks import joining, markdown, results, tables
from medmind_benchmarks.results import Report
from medmind_benchmarks.runner import Outcome
from medmind_benchmarks.score import Result


@pytest.fixture(scope="module")
def report(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of raw text and questions, with a quantized cache as well."""
    folder = tmp_path_factory.mktemp("cache")
    records = [
        {"id": f"{i}", "question": f"which {i}?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": i % 4}
        for i in range(6)
    ]
    questions = folder / "medmcqa.jsonl"
    questions.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    given = ("--measure", "raw,choices", "--questions", questions, "--kv", "q4_0", "--chunk", "32", "--chunks", "8")
    files = (family / "family.q8_0.gguf", "--heldout", family / HELDOUT, "--out", folder / "out")
    ended = medmind_bench("quants", *files, *given, "--threads", "1", pages=False)
    assert ended.returncode == 0, ended.stderr
    return results.read_report(folder / "out" / "report.json")


def test_questions_are_asked_with_each_cache(report: Report) -> None:
    (level,) = report.levels
    (asked,), (again,) = level.figures.choices, level.kv[0].choices
    assert (again.task, again.digest, again.questions) == (asked.task, asked.digest, 6)
    assert asked.flips is None and again.flips, "against the same file with the 16-bit cache, the reference"
    page = markdown.render(report)
    part = page[page.index("## Quantized KV cache") :]
    assert "right, MedMCQA" in part and "lost" in part
    assert "| q8_0, KV q4_0 |" in part and "answer tokens/s" not in part.split("##")[1], "nothing measured, no column"


def test_a_cache_is_held_against_the_same_file_with_the_16_bit_one() -> None:
    """Beside q8_0 weights, whose own cost against f16 is the other figure."""
    level = SimpleNamespace(label="q8_0", model=Mock(read_bytes=1))
    level.model.kv_cache_bytes.return_value = 1
    outcome = Outcome()
    for label, kv_type, nll in (("f16", "f16", 4.0), ("q8_0", "f16", 6.0), ("q8_0", "q4_0", 7.0)):
        for text in ("raw", "answers"):
            outcome.results[label, (text, kv_type)] = Result((nll, nll + 1), (), 40.0, (2, 2), (), None, 1.0)
    plan = SimpleNamespace(config=SimpleNamespace(load_modes=(), contexts=(), rounds=0), questions=(), reference="f16")
    plan.texts, plan.prompt_tokens, plan.generated_tokens = SimpleNamespace(kl_base=None), 1, 1
    plain, cached = (joining.figures(plan, outcome, level, kv_type) for kv_type in ("f16", "q4_0"))  # type: ignore[arg-type]
    for one in (cached.raw, cached.answers):
        assert one and one.ratio and one.cache_ratio
        assert math.log(one.cache_ratio.value) == pytest.approx(1 / 2)
        assert math.log(one.ratio.value) == pytest.approx(3 / 2)
    assert plain.raw and plain.raw.cache_ratio is None


def test_the_report_tells_both_changes_and_the_paired_error(report: Report) -> None:
    (level,) = report.levels
    assert level.kv[0].raw and level.figures.raw and level.figures.raw.cache_ratio is None
    ratio = level.kv[0].raw.cache_ratio
    assert ratio and ratio.error and ratio == level.kv[0].raw.ratio, "the file is the reference itself"
    assert ratio.value == pytest.approx(level.kv[0].raw.perplexity.value / level.figures.raw.perplexity.value)
    page = markdown.render(report)
    part = page[page.index("## Quantized KV cache") :].split("##")[1]
    assert "against its 16-bit cache" in part and part.count(tables.change(ratio)) == 2


@pytest.mark.parametrize("version", [2, 3])
def test_reports_from_before_are_read(report: Report, version: int) -> None:
    document = report.to_json()
    document["schema"] = f"medmind-benchmark-quants/{version}"
    for level in document["levels"]:
        for figures in (level["figures"], *level["kv"]):
            for text in ("answers", "raw"):
                if figures[text]:
                    del figures[text]["cache_ratio"]
        for gap in level["gaps"]:
            del gap["cause"]
    if version == 2:
        del document["beside"]
    read = Report.from_json(document)
    assert read.levels[0].kv[0].raw and read.levels[0].kv[0].raw.cache_ratio is None
    assert read.levels[0].figures == report.levels[0].figures
