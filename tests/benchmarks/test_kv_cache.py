"""What a quantized KV cache costs, beside the 16-bit one of the same file."""

import json
from pathlib import Path

import pytest
from bench_command import medmind_bench

from medmind.artifacts import HELDOUT
from medmind_benchmarks import markdown, results
from medmind_benchmarks.results import Report


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
