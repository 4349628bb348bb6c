"""Records beside two reports: paired, they find what errors alone hide; those of another report are refused."""

import dataclasses
import json
import math
import shutil
import subprocess
from pathlib import Path

import bench_reports as reports
import pytest
from bench_changes import changed, divergences, level, of, questions, rows
from bench_command import medmind_bench

from medmind.errors import MedmindError
from medmind_benchmarks import pairing, recount
from medmind_benchmarks.compare import compare
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.results import RawText
from medmind_benchmarks.statistics import Estimate
from medmind_benchmarks.verdict import Limits


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
    found = of(before, now, "perplexity", beside=(rows(0), rows(math.log(1.02))))
    assert found.paired and found.verdict == "worse"
    assert found.change == pytest.approx(0.022, abs=0.001)
    slight = of(before, now, "perplexity", beside=(rows(0), rows(0.001)))
    assert slight.verdict == "within limits"
    assert of(before, now, "perplexity", beside=(rows(0), rows(-0.02))).verdict == "better"
    assert not of(before, now, "perplexity", beside=(rows(0), Beside(rows=rows(0.02).rows[:-1]))).paired


def test_divergence_is_paired_by_row() -> None:
    before = reports.full()
    kl = level(before).figures.answers_fidelity
    assert kl
    old, now = (
        changed(before, "q4_k_m", answers_fidelity=dataclasses.replace(kl, kl_mean=Estimate(mean, 0.003)))
        for mean in (0.012, 0.0144)
    )
    assert of(old, now, "mean KL").verdict == "same", "beside errors as large"
    found = of(old, now, "mean KL", beside=(divergences(1), divergences(1.2)))
    assert found.paired and found.verdict == "worse"
    assert found.change == pytest.approx(0.2)
    assert of(old, old, "mean KL", beside=(divergences(1), divergences(1.05))).verdict == "within limits"


def test_answers_are_paired_by_question() -> None:
    before = reports.full()
    figure = "right, held-out answers"
    lost_six = of(before, before, figure, beside=(questions(0, 0), questions(6, 0)))
    assert lost_six.paired and lost_six.change == pytest.approx(-0.06) and lost_six.verdict == "worse"
    assert lost_six.error == pytest.approx(math.sqrt((0.06 - 0.06**2) / 99))
    assert of(before, before, figure, beside=(questions(0, 0), questions(5, 0))).verdict == "same", (
        "McNemar's p is 0.06"
    )
    assert of(before, before, figure, beside=(questions(0, 0), questions(9, 9))).verdict == "same"
    assert of(before, before, figure, beside=(questions(0, 0), questions(0, 7))).verdict == "better"
    fewer = Beside(questions=questions(0, 0).questions[:-1])
    assert not of(before, before, figure, beside=(questions(0, 0), fewer)).paired


def test_raw_text_is_compared_and_paired_where_it_is_the_same() -> None:
    before = reports.full()
    raw = RawText("notes.txt", "sha256:5", 4096, 512, 8, 8)
    old = dataclasses.replace(changed(before, "q4_k_m", raw=level(before).figures.answers), raw_text=raw)
    assert not of(old, old, "perplexity, raw text").paired
    chunks = tuple(
        Beside(chunks=[{"chunk": i, "tokens": 255, "nll": {"q4_k_m": 400.0 + i + more}, "kl": {}} for i in range(8)])
        for more in (0.0, 9.0)
    )
    found = of(old, old, "perplexity, raw text", beside=chunks)
    assert found.paired and found.verdict == "worse" and found.change == pytest.approx(math.expm1(9 / 255))
    other = dataclasses.replace(old, raw_text=dataclasses.replace(raw, digest="sha256:6"))
    compared = compare(old, other, Limits())
    assert any("raw texts differ" in note for note in compared.notes)
    assert {one.verdict for one in compared.changes if "raw text" in one.figure} == {"not comparable"}
    renamed = dataclasses.replace(old, raw_text=dataclasses.replace(raw, source="copy.txt"))
    assert not compare(old, renamed, Limits()).notes, "the same text under another name"


def test_records_of_another_report_are_refused_and_unknown_ones_not_used(tmp_path: Path) -> None:
    for name in pairing.FILES:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows(0).rows), encoding="utf-8")
    known = pairing.digests(tmp_path)
    report = tmp_path / "report.json"
    assert len(pairing.read(report, known).rows) == 40
    assert pairing.read(report, {}) == Beside(), "a report of before says nothing of them"
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(MedmindError, match=r"rows.jsonl is not the file that report.json was written with"):
        pairing.read(report, known)


def test_right_answers_that_are_not_those_of_the_questions_are_refused(tmp_path: Path) -> None:
    report = changed(reports.full(), "q4_k_m", choices=(reports.choice(0.6, 3),))
    recount.demand(tmp_path, report, questions(0, 0))
    with pytest.raises(MedmindError, match=r"q4_k_m's right, held-out answers is 0\.6, the records .* come to 0\.57"):
        recount.demand(tmp_path, report, questions(3, 0))


def test_what_noise_hides_and_what_is_not_paired_is_said() -> None:
    before = reports.full()
    found = compare(before, before, Limits())
    assert found.unpaired == ("rows.jsonl", "questions.jsonl")
    (hidden,) = (one for one in found.unseen if one.figure == "perplexity")
    assert hidden.error is not None
    assert hidden.least == pytest.approx(1.991 * hidden.error, rel=1e-3), "Student's t of twice 40 rows"
    paired = compare(before, before, Limits(), beside=(rows(0), rows(0)))
    assert paired.unpaired == ("questions.jsonl",)


@pytest.mark.parametrize(
    ("text", "part", "words"),
    [
        ("answers", "perplexity", "q2_k's perplexity is"),
        ("answers_fidelity", "kl_mean", "q2_k's mean KL is"),
        ("raw", "perplexity", "q2_k's perplexity, raw text is"),
        ("raw_fidelity", "kl_mean", "q2_k's mean KL, raw text is"),
    ],
)
def test_a_figure_that_is_not_what_its_records_come_to_is_refused(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path, text: str, part: str, words: str
) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(finished[0], folder)
    whole = medmind_bench("compare", finished[0], folder)
    assert whole.returncode == 0, whole.stderr
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    document["levels"][2]["figures"][text][part]["value"] *= 1.5
    (folder / "report.json").write_text(json.dumps(document), encoding="utf-8")
    for pair in ((finished[0], folder), (folder, finished[0])):
        result = medmind_bench("compare", *pair)
        assert result.returncode == 1 and words in result.stderr and "records beside it come to" in result.stderr
