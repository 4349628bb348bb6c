"""The command from end to end, on small real models."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import bench_model
import psutil
import pytest
from bench_command import medmind_bench
from bench_rows import heldout_rows, write_heldout
from gguf import GGUFWriter

from medmind.artifacts import HELDOUT, MANIFEST
from medmind.errors import MedmindError
from medmind_benchmarks import bandwidth, machine, markdown, need, page, plan, quants, results, runner, sources
from medmind_benchmarks.config import QuantsConfig
from medmind_benchmarks.figures import Bandwidth
from medmind_benchmarks.matrix import Cell
from medmind_benchmarks.model_file import read
from medmind_benchmarks.outcome import Outcome
from medmind_benchmarks.process import Limits
from medmind_benchmarks.statistics import repeated
from medmind_benchmarks.store import Store

SHORT = ["--threads", "1", "--rounds", "1", "--repeats", "1", "--contexts", "128", "--load-modes", "auto"]
SHORT += ["--prompt-tokens", "16", "--gen-tokens", "8", "--chunk", "32", "--chunks", "4"]
QUICK = [*SHORT, "--measure", "answers", "--rows", "5"]


def bench(*arguments: str | Path, cwd: Path | None = None, pages: bool = False) -> "subprocess.CompletedProcess[str]":
    return medmind_bench("quants", *arguments, cwd=cwd, pages=pages)


def refused(result: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert result.stdout == ""


@pytest.fixture
def run_folder(family: Path, tmp_path: Path) -> Path:
    """A run with an f16 and a q8_0, its own copy."""
    folder = tmp_path / "runs" / "night"
    folder.mkdir(parents=True)
    for name in ("family.f16.gguf", "family.q8_0.gguf", HELDOUT):
        shutil.copy(family / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def finished(family: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    out = tmp_path_factory.mktemp("finished") / "report"
    return out, bench(family, "--out", out, *SHORT, "--repeats", "2", "--contexts", "128,512", pages=True)


def test_a_run_is_measured_level_by_level(finished: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    out, result = finished
    assert result.returncode == 0, result.stderr
    stems = ("perplexity-by-size", "memory-by-context", "speed", "kl-divergence")
    pictures = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    names = {"report.json", "report.md", "report.html", "rows.jsonl", "chunks.jsonl", "questions.jsonl"} | pictures
    assert {path.name for path in out.iterdir()} == names
    report = results.read_report(out / "report.json")
    assert [level.label for level in report.levels] == ["f16", "q8_0", "q2_k"]
    assert report.reference == "f16"
    assert report.held_out and report.held_out.rows == 12 and report.held_out.answers == 15
    whole, good, poor = (level.quality for level in report.levels)
    assert whole and good and poor and good.ratio and poor.ratio and whole.perplexity.error
    assert whole.ratio is None
    assert abs(good.ratio.value - 1) < abs(poor.ratio.value - 1)
    assert good.ratio.error is not None
    assert good.ratio.error * whole.perplexity.value < whole.perplexity.error / 3, (
        "pairing should cancel the rows' noise"
    )
    for level in report.levels:
        assert level.prompt and level.generation and level.memory
        assert len(level.prompt.tokens_per_second.samples) == 2 and level.prompt.tokens_per_second.deviation
        assert (level.prompt.relative is None) == (level.label == "f16")
        assert level.generation.bandwidth_share and level.generation.bandwidth_share.value > 0
        assert level.load_seconds and level.figures.first_token_seconds
        memory = level.memory
        assert 5e6 < memory.library < memory.peak
        assert memory.added >= memory.kv_cache + memory.compute > 0
        assert level.digest.startswith("sha256:")
        assert [(one.load_mode, one.context) for one in level.figures.memory] == [("auto", 128)]
        assert [need.context for need in level.figures.needs] == [128]
        assert ("skipped", "the model holds 256 tokens") in {(gap.status, gap.reason) for gap in level.gaps}
        assert [gap.cell for gap in level.gaps if "no question can be made" in gap.reason] == ["multiple choice"]
        assert {gap.status for gap in level.gaps} == {"skipped"}
        assert level.status == "measured", "a context that a model does not have is no fault"
    f16, q2 = report.level("f16").memory, report.level("q2_k").memory
    assert f16 and q2 and f16.weights > 4 * q2.weights
    assert report.conditions.bandwidth and report.conditions.bandwidth.bytes_per_second.mean > 1e8


def test_fidelity_orders_the_levels(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    report = results.read_report(finished[0] / "report.json")
    f16, q8, q2 = report.levels
    assert f16.figures.raw_fidelity is None and f16.figures.raw
    for text in ("answers_fidelity", "raw_fidelity"):
        near, far = getattr(q8.figures, text), getattr(q2.figures, text)
        assert near.method == "direct"
        assert 0 < near.kl_mean.value < far.kl_mean.value / 10
        assert near.kl_median.value <= near.kl_p99.value <= near.kl_max
        assert near.kl_mean.error and near.kl_median.error and near.kl_p99.error
        assert near.same_top.value > far.same_top.value
        assert near.rms_delta_p.value < far.rms_delta_p.value
        counted = sum(near.kl_histogram.counts) + near.kl_histogram.below + near.kl_histogram.above
        assert counted == near.tokens > 50


def test_a_quantized_cache_costs(family: Path, tmp_path: Path) -> None:
    settings = [*SHORT, "--kv", "q8_0,q4_0", "--measure", "answers", "--rows", "6", "--json"]
    out = ["--out", str(tmp_path / "report"), "--heldout", str(family / HELDOUT)]
    result = bench(family / "family.f16.gguf", *out, *settings)
    assert result.returncode == 0, result.stderr
    (level,) = results.Report.from_json(json.loads(result.stdout)).levels
    eight, four = level.kv
    assert (eight.kv_type, four.kv_type) == ("q8_0", "q4_0")
    assert eight.answers_fidelity and four.answers_fidelity and eight.answers and eight.answers.ratio
    assert 0 < eight.answers_fidelity.kl_mean.value < four.answers_fidelity.kl_mean.value < 0.2


@pytest.mark.slow
def test_every_load_mode_is_measured_with_every_cache(family: Path, tmp_path: Path) -> None:
    settings = [*SHORT, "--kv", "q8_0,q4_0", "--load-modes", "auto,mmap,copy", "--measure", "memory", "--json"]
    result = bench(family / "family.f16.gguf", "--out", tmp_path / "report", *settings)
    assert result.returncode == 0, result.stderr
    (level,) = results.Report.from_json(json.loads(result.stdout)).levels
    modes = {memory.load_mode: memory for memory in level.figures.memory}
    assert list(modes) == ["auto", "mmap", "copy"]
    assert modes["copy"].anonymous and modes["mmap"].anonymous
    assert modes["copy"].anonymous > modes["mmap"].anonymous
    for kept, share in zip(level.kv, (34 / 64, 18 / 64), strict=True):
        assert kept.memory[0].kv_cache == pytest.approx(share * modes["auto"].kv_cache, rel=0.1)


def test_published_questions_are_answered_and_flips_counted(family: Path, tmp_path: Path) -> None:
    records = [
        {"id": f"{i}", "question": f"which {i}?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": i % 4}
        for i in range(8)
    ]
    source = tmp_path / "medmcqa.jsonl"
    source.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    arguments = ("--measure", "choices", "--questions", source, "--threads", "1", "--out", tmp_path / "out", "--json")
    ended = bench(family, *arguments, pages=True)
    assert ended.returncode == 0, ended.stderr
    report = results.Report.from_json(json.loads(ended.stdout))
    for level in report.levels:
        (found,) = level.figures.choices
        assert (found.task, found.questions, found.choices, found.chance) == ("MedMCQA", 8, 4, 0.25)
        assert found.headline == "accuracy" and found.accuracy == found.accuracy_normalized
        assert (found.flips is None) == (level.label == report.reference)
    asked = [json.loads(line) for line in (tmp_path / "out" / "questions.jsonl").read_text("utf-8").splitlines()]
    assert [(one["task"], one["id"]) for one in asked] == [("MedMCQA", f"{i}") for i in range(8)]
    for level in report.levels:
        share = sum(one["right"][level.label] for one in asked) / 8
        assert level.figures.choices[0].quoted.value == share
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Multiple choice: MedMCQA" in page and "## Speed" not in page
    again = bench(family, *arguments, "--force")
    assert json.loads(again.stdout)["conditions"]["reused"] == 3


def test_every_table_comes_from_the_json(finished: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    out, result = finished
    page = (out / "report.md").read_text(encoding="utf-8")
    assert page == markdown.render(results.read_report(out / "report.json"))
    assert "perplexity" in result.stdout and "q2_k" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80 + len(str(out))


def test_rows_add_up_to_the_perplexity(finished: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    import math

    out, _ = finished
    report = results.read_report(out / "report.json")
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [f"row-{index}" for index in range(12)]
    tokens = sum(row["tokens"] for row in rows)
    assert report.held_out and tokens == report.held_out.tokens
    for level in report.levels:
        assert level.quality
        total = sum(row["nll"][level.label] for row in rows)
        assert level.quality.perplexity.value == pytest.approx(math.exp(total / tokens))
        if level.figures.answers_fidelity:
            mean = sum(row["kl"][level.label] for row in rows) / tokens
            assert level.figures.answers_fidelity.kl_mean.value == pytest.approx(mean)
    chunks = [json.loads(line) for line in (out / "chunks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert report.raw_text and len(chunks) == report.raw_text.chunks == 4
    assert {chunk["tokens"] for chunk in chunks} == {15}


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


def test_json_is_the_only_thing_on_stdout_and_rows_are_capped(run_folder: Path) -> None:
    result = bench(run_folder, "--json", *QUICK)
    assert result.returncode == 0, result.stderr
    report = results.Report.from_json(json.loads(result.stdout))
    assert report == results.read_report(run_folder / "benchmark" / "report.json")
    assert report.held_out and (report.held_out.rows, report.held_out.rows_in_file) == (5, 12)
    assert "5 of 12 rows" in result.stderr


def test_bare_takes_the_newest_run_with_models_and_a_report_is_replaced_by_force_only(run_folder: Path) -> None:
    root = run_folder.parent.parent
    (run_folder / "family.q8_0.gguf").unlink()
    older = run_folder.parent / "older"
    older.mkdir()
    shutil.copy(run_folder / "family.f16.gguf", older / "old.f16.gguf")
    os.utime(older / "old.f16.gguf", (1, 1))
    result = bench(*QUICK, cwd=root)
    assert result.returncode == 0, result.stderr
    report = run_folder / "benchmark" / "report.json"
    before = report.read_bytes()
    refused(bench(*QUICK, cwd=root), "exists already")
    assert report.read_bytes() == before
    assert bench(*QUICK, "--force", cwd=root).returncode == 0
    assert report.read_bytes() != before
    assert not list(run_folder.glob(".*"))


def test_force_does_not_replace_a_folder_that_is_no_report(run_folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter.txt").write_text("keep me", encoding="utf-8")
    refused(bench(run_folder, "--out", precious, "--force", *QUICK), "not an earlier report")
    assert (precious / "letter.txt").read_text(encoding="utf-8") == "keep me"


def test_a_cut_off_model_is_refused_before_the_work(run_folder: Path) -> None:
    cut = run_folder / "family.q4_k_m.gguf"
    cut.write_bytes((run_folder / "family.q8_0.gguf").read_bytes()[:-50])
    refused(bench(run_folder, *QUICK), "family.q4_k_m.gguf is cut off")
    assert not (run_folder / "benchmark").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("not a model", encoding="utf-8")
    refused(bench(text, "--heldout", write_heldout(tmp_path / "h.jsonl", heldout_rows(2)), *QUICK), "not a GGUF file")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(bench(tmp_path / "none.gguf", *QUICK), "does not exist")


def test_files_without_a_held_out_set_are_told_how_to_give_one(run_folder: Path) -> None:
    (run_folder / HELDOUT).unlink()
    refused(bench(run_folder / "family.f16.gguf", *QUICK), "--heldout FILE")


def test_a_held_out_file_without_answers_is_refused(run_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "a"}\n', encoding="utf-8")
    refused(bench(run_folder, "--heldout", bad, *QUICK), "row 1 has no answer")
    assert not (run_folder / "benchmark").exists()


def test_models_with_different_vocabularies_are_refused(run_folder: Path) -> None:
    bench_model.write(run_folder / "other.gguf", words=[*bench_model.WORDS[:-1], "▁was"])
    refused(bench(run_folder, *QUICK), "different vocabularies")


def test_models_with_different_templates_are_refused(run_folder: Path) -> None:
    bench_model.write(run_folder / "other.gguf", template=bench_model.TEMPLATE.replace("[INST] ", "[INST]"))
    refused(bench(run_folder, *QUICK), "different chat templates")


def test_models_with_different_system_prompts_are_refused(run_folder: Path) -> None:
    bench_model.write(run_folder / "other.gguf", system="Answer briefly.")
    refused(bench(run_folder, *QUICK), "different system prompts")


def test_the_system_prompt_of_the_models_is_part_of_what_is_scored(run_folder: Path) -> None:
    plain = planned(run_folder).texts.held_out
    for file in run_folder.glob("*.gguf"):
        file.unlink()
    bench_model.write(run_folder / "framed.gguf", system="Answer.", template=bench_model.FRAMED)
    framed = planned(run_folder).texts.held_out
    assert plain and framed and framed.token_digest != plain.token_digest


def test_a_folder_without_models_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    refused(bench(tmp_path, *QUICK), f"holds no {MANIFEST}")
    (tmp_path / MANIFEST).write_text('{"format": "medmind-run/1"}', encoding="utf-8")
    refused(bench(tmp_path, *QUICK), "medmind-convert gguf")
    refused(bench(*QUICK, cwd=tmp_path), "no converted model")


def test_the_embedded_run_is_found_by_its_name_with_rows_that_are_given(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [Path("medmind-tiny")]
    with pytest.raises(MedmindError, match="medmind-convert gguf f16 q8_0 q4_k_m medmind-tiny"):
        sources.find(named, None, None)
    place = Path("runs/medmind-tiny")
    place.mkdir(parents=True)
    shutil.copy(family / "family.f16.gguf", place / "medmind-tiny.f16.gguf")
    with pytest.raises(MedmindError, match=r"no heldout.jsonl in runs/medmind-tiny — give one with --heldout FILE"):
        sources.find(named, None, None)
    found = sources.find(named, family / HELDOUT, None)
    assert found.files == (place / "medmind-tiny.f16.gguf",)
    assert (found.heldout, found.out) == (family / HELDOUT, place / "benchmark")


def test_a_prompt_longer_than_the_context_is_refused(run_folder: Path) -> None:
    refused(bench(run_folder, "--context", "64", "--prompt-tokens", "64"), "--prompt-tokens 64 does not fit")
    refused(bench(run_folder, "--context", "9999"), "hold 256 tokens")


@contextmanager
def silent(description: str, total: float, unit: str) -> Iterator[object]:
    yield lambda amount=1, status="": None


def planned(folder: Path, **settings: Any) -> plan.Plan:
    config = QuantsConfig(
        measure=("answers", "speed"),
        cell_memory=2**30,
        rows=3,
        rounds=2,
        repeats=1,
        threads=1,
        prompt_tokens=8,
        generated_tokens=4,
    )
    return plan.make(sources.find([folder], None, None), replace(config, **settings))


def test_a_level_that_does_not_fit_in_memory_is_refused_and_the_rest_measured(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = need.process_bytes(read(run_folder / "family.q8_0.gguf"), bench_model.CONTEXT)
    monkeypatch.setattr(machine, "available_memory", lambda: (size, 2 * size))
    outcome = quants.run(planned(run_folder, measure=("answers",)), silent)  # type: ignore[arg-type]
    whole, small = outcome.report.levels
    assert whole.status == "refused" and "free of" in whole.reason
    assert small.status == "measured" and small.quality
    assert outcome.report.reference == "q8_0"
    assert "itself quantized" in markdown.render(outcome.report)
    assert outcome.missing == [whole]


def test_a_cell_that_crashes_is_marked_and_the_rest_goes_on(run_folder: Path, tmp_path: Path) -> None:
    crashing = tmp_path / "crashing.py"
    crashing.write_text(
        "import json, sys\n"
        "from medmind_benchmarks import cell\n"
        "line = sys.stdin.readline()\n"
        "if json.loads(line).get('model', '').endswith('q8_0.gguf'):\n"
        "    sys.exit('the disk fell out')\n"
        "class Replay:\n"
        "    def readline(self): return line\n"
        "    read = staticmethod(sys.stdin.read)\n"
        "sys.stdin = Replay()\n"
        "cell.main()\n",
        encoding="utf-8",
    )
    outcome = quants.run(planned(run_folder), silent, command=[sys.executable, str(crashing)])  # type: ignore[arg-type]
    whole, lost = outcome.report.levels
    assert whole.status == "measured" and whole.prompt
    assert len(whole.prompt.tokens_per_second.samples) == 2
    assert lost.status == "failed"
    assert "answers: the measuring process ended with exit code 1: the disk fell out" in lost.reason
    assert {gap.status for gap in lost.gaps} == {"failed"}
    assert lost.reason.count("speed") == 1, "a level that crashed is not tried again in every round"
    assert outcome.missing == [lost]


def test_a_damaged_level_fails_alone_and_the_command_exits_with_1(run_folder: Path) -> None:
    path = run_folder / "family.q8_0.gguf"
    data = bytearray(path.read_bytes())
    place = data.index(b"output_norm.weight")
    data[place : place + 18] = b"output_gnome.weigh"
    path.write_bytes(data)
    result = bench(run_folder, *QUICK)
    assert result.returncode == 1
    assert "1 of 2 levels were not measured whole: q8_0 failed" in result.stderr
    report = results.read_report(run_folder / "benchmark" / "report.json")
    assert [level.status for level in report.levels] == ["measured", "failed"]


def nothing(outcome: Outcome) -> tuple[MedmindError, str]:
    """The one line of a run that measured nothing, and the page that holds every reason."""
    with pytest.raises(MedmindError, match="nothing could be measured") as caught:
        outcome.demand_whole(Path("there/report.md"))
    assert "there/report.md" in caught.value.hint
    assert page.render(outcome.report)
    return caught.value, markdown.render(outcome.report)


def test_when_nothing_can_be_measured_the_report_says_why_of_each(run_folder: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the disk fell out')"]
    error, text = nothing(quants.run(planned(run_folder, measure=("answers",)), silent, command=command))  # type: ignore[arg-type]
    assert ", answers failed: the measuring process ended" in error.message and "medmind-chat" in error.hint
    assert text.count("the disk fell out") >= 2


def test_when_every_cell_is_over_its_limit_the_hint_is_to_allow_more(run_folder: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    short = planned(run_folder, measure=("answers",), cell_seconds=0.2)
    error, text = nothing(quants.run(short, silent, command=command))  # type: ignore[arg-type]
    assert "its limit of 0.2 s" in error.message and error.hint.startswith("allow more with --cell-time")
    assert text.count("its limit of 0.2 s") >= 2
    hog = [sys.executable, "-c", "held = bytearray(2**26); import time; time.sleep(60)"]
    small = planned(run_folder, measure=("answers",), cell_memory=2**24)
    error, _ = nothing(quants.run(small, silent, command=hog))  # type: ignore[arg-type]
    assert error.hint.startswith("allow more with --cell-memory")


def test_when_no_level_fits_in_memory_the_report_says_so(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: (2**16, 2**20))
    error, text = nothing(quants.run(planned(run_folder), silent, command=["false"]))  # type: ignore[arg-type]
    assert error.message.startswith("nothing could be measured: q8_0") and "64.00 KiB free" in error.message
    assert error.hint.startswith("give smaller files")
    assert text.count("64.00 KiB free") >= 2
    short = ["--out", run_folder / "out", "--measure", "answers"]
    result = bench(run_folder, *map(str, short))
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: nothing could be measured")
    report = results.read_report(run_folder / "out" / "report.json")
    assert [level.status for level in report.levels] == ["refused", "refused"]


def test_what_was_measured_earlier_keeps_its_time_and_its_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = bandwidth.Request("bandwidth", 1, 1, 0)
    cell = Cell("f16", ("bandwidth", 0), "bandwidth", request, Bandwidth, 1, 1.0)
    found = Bandwidth(repeated([1e9, 2e9]), 1, 2**20, "read")
    answer = json.dumps({"result": asdict(found)})
    command = [sys.executable, "-S", "-c", f"print({answer!r})"]
    for load in (3.5, 0.5):
        monkeypatch.setattr(machine, "load_average", lambda load=load: load)
        outcome = runner.run([cell], Store(tmp_path, {}), Limits(), silent, command)  # type: ignore[arg-type]
        if load == 3.5:
            first = outcome
            kept = next(tmp_path.iterdir())
            kept.write_text(kept.read_text("utf-8").replace(first.created, "2026-01-02T03:04:05+00:00"), "utf-8")
    assert first.created > "2026-01-02" and outcome.reused == 1 and outcome.results == first.results
    assert (outcome.created, outcome.load_before) == ("2026-01-02T03:04:05+00:00", first.load_before)
    assert first.load_before == 3.5
    monkeypatch.setattr(machine, "llama_build", lambda: "CPU : SSE3 = 1")
    assert Store(tmp_path, {}).get(request, Bandwidth) is None, "another build of llama.cpp"


def test_questions_are_asked_though_quick_and_never_dropped(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[QuantsConfig] = []

    def make(_: object, config: QuantsConfig) -> plan.Plan:
        made.append(config)
        raise MedmindError("enough")

    monkeypatch.setattr(plan, "make", make)
    bench(run_folder, "--quick", "--questions", "x.jsonl")
    bench(run_folder, "--quick")
    assert [("choices" in config.measure, config.questions) for config in made] == [(True, ("x.jsonl",)), (False, ())]
    refused(bench(run_folder, "--questions", "x.jsonl", "--measure", "answers"), "does not ask the --questions")


def test_what_is_given_in_the_wrong_place_is_one_line(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(bench(run_folder, "--text", folder), f"--text {folder} is a folder — give a file with --text FILE")
    refused(bench(run_folder, "--heldout", folder), f"{folder} is a folder — give a file with --heldout FILE")
    plain = tmp_path / "plain.txt"
    plain.write_text("mine", encoding="utf-8")
    for force in ([], ["--force"]):
        refused(bench(run_folder, "--out", plain, *force), "is a file, a report is a folder — give another --out")
    matrix = GGUFWriter(tmp_path / "m.gguf", "")
    matrix.add_type("imatrix")
    for part in ("header", "kv_data", "tensors"):
        getattr(matrix, f"write_{part}_to_file")()
    matrix.close()
    refused(
        bench(tmp_path / "m.gguf", "--heldout", run_folder / HELDOUT), "m.gguf holds an importance matrix, no model"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_the_cell_and_leaves_nothing_behind(run_folder: Path) -> None:
    script = "from medmind_benchmarks.cli import main; main()"
    command = [sys.executable, "-c", script, "quants", str(run_folder), "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--repeats", "500", "--measure", "speed"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 30
    while not children and time.monotonic() < deadline:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children()
    assert children
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert not (run_folder / "benchmark").exists()
    assert not list(run_folder.glob(".*"))


def killed_after(folder: Path, settings: list[str], cells_done: int) -> dict[Path, int]:
    """Start the command, kill it when so many scores lie there, and say which those are and when they were written."""
    command = [sys.executable, "-c", "from medmind_benchmarks.cli import main; main()", "quants", str(folder)]
    process = subprocess.Popen([*command, *settings], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    cells = folder / "benchmark.cells"
    deadline = time.monotonic() + 60
    while len(list(cells.glob("score-*.json"))) < cells_done and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "benchmark").exists()
    return {path: path.stat().st_mtime_ns for path in cells.glob("score-*.json")}


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_after_a_kill_only_what_is_missing_runs(run_folder: Path) -> None:
    known = killed_after(run_folder, QUICK, 1)
    assert len(known) == 1
    result = bench(run_folder, *QUICK)
    assert result.returncode == 0, result.stderr
    report = results.read_report(run_folder / "benchmark" / "report.json")
    assert (report.conditions.cells, report.conditions.reused) == (2, 1)
    assert {path: path.stat().st_mtime_ns for path in known} == known


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_results_of_every_kind_are_taken_until_they_are_wanted_fresh(run_folder: Path) -> None:
    settings = [*SHORT, "--measure", "answers,raw,memory"]
    known = killed_after(run_folder, settings, 2)
    assert 2 <= len(known) < 4
    result = bench(run_folder, *settings)
    assert result.returncode == 0, result.stderr
    report = results.read_report(run_folder / "benchmark" / "report.json")
    assert (report.conditions.cells, report.conditions.reused) == (6, len(known))
    assert {path: path.stat().st_mtime_ns for path in known} == known
    again = bench(run_folder, *settings, "--force", "--json")
    assert json.loads(again.stdout)["conditions"]["reused"] == 6
    anew = bench(run_folder, *settings, "--force", "--fresh", "--measure", "answers", "--json")
    assert json.loads(anew.stdout)["conditions"]["reused"] == 0


@pytest.mark.slow  # it waits out a limit; test_process.py has limits of half a second
def test_a_cell_that_takes_too_long_is_in_the_report_with_its_reason(run_folder: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import json, sys, time\n"
        "from medmind_benchmarks import cell\n"
        "line = sys.stdin.readline()\n"
        "if json.loads(line)['model'].endswith('q8_0.gguf'):\n"
        "    time.sleep(60)\n"
        "class Replay:\n"
        "    def readline(self): return line\n"
        "    read = staticmethod(sys.stdin.read)\n"
        "sys.stdin = Replay()\n"
        "cell.main()\n",
        encoding="utf-8",
    )
    outcome = quants.run(
        planned(run_folder, measure=("answers",), cell_seconds=5.0),
        silent,  # type: ignore[arg-type]
        command=[sys.executable, str(slow)],
    )
    (gap,) = outcome.report.levels[1].gaps
    assert gap.reason == "it took longer than its limit of 5 s (--cell-time)"
    assert outcome.report.levels[0].status == "measured"


def test_a_cell_that_needs_more_memory_than_there_is_is_refused_from_the_plan(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = need.process_bytes(read(run_folder / "family.f16.gguf"), bench_model.CONTEXT)
    monkeypatch.setattr(machine, "available_memory", lambda: (size, 2 * size))
    # both models do not fit side by side; the file of log-probabilities takes their place
    outcome = quants.run(planned(run_folder, measure=("answers",)), silent)  # type: ignore[arg-type]
    fidelity = outcome.report.level("q8_0").figures.answers_fidelity
    assert fidelity and fidelity.method == "base-file" and 0 < fidelity.kl_mean.value < 0.1
    assert not list((run_folder / "benchmark.cells").glob("*.rows"))
    outcome = quants.run(planned(run_folder, measure=("answers",), kl="direct"), silent)  # type: ignore[arg-type]
    (gap,) = outcome.report.level("q8_0").gaps
    assert gap.status == "refused" and "are free" in gap.reason
    assert outcome.report.level("q8_0").status == "refused"


def test_the_untuned_base_is_a_level_of_its_own(run_folder: Path) -> None:
    for file in run_folder.glob("*.gguf"):
        file.unlink()
    facts = {"medmind.base.digest": "sha256:b", "medmind.base.name": "somewhere/plain"}
    bench_model.write(run_folder / "tuned.gguf", facts={**facts, "medmind.adapter.digest": "sha256:a"})
    (run_folder.parent / "plain").mkdir()
    beside = run_folder.parent / "plain" / "plain.f16.gguf"
    bench_model.write(beside, seed=5, template=bench_model.FRAMED, facts=facts)
    found = sources.find([run_folder], None, None)
    assert found.base == beside, "where medmind-convert puts it, it is found"
    base = beside.rename(run_folder.parent / "other.gguf")
    report = results.Report.from_json(json.loads(bench(run_folder, "--base", base, *QUICK, "--json").stdout))
    assert [(level.label, level.base) for level in report.levels] == [("f16", False), ("base f16", True)]
    assert report.reference == "f16"
    assert report.levels[1].figures.answers_fidelity and report.pick.label is None


def test_raw_text_shorter_than_two_chunks_is_refused_and_one_out_of_rows_left_out(
    run_folder: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Rest and water help.", encoding="utf-8")
    refused(bench(run_folder, *SHORT, "--measure", "raw", "--text", short), "short.txt has 17 tokens")
    left_out = bench(run_folder, *QUICK, "--measure", "answers,raw", "--rows", "1", "--chunk", "200", "--json")
    assert left_out.returncode == 0, left_out.stderr
    assert {gap["cell"] for gap in json.loads(left_out.stdout)["levels"][0]["gaps"]} == {"raw text"}


def test_memory_and_speed_need_no_held_out_set(run_folder: Path) -> None:
    (run_folder / HELDOUT).unlink()
    result = bench(run_folder, *SHORT, "--measure", "memory", "--random-weights", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["random_weights"] is True and document["held_out"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--measure", "answers,taste"], "--measure taste is none of"),
        (["--kv", "q3_k"], "--kv q3_k is none of q8_0, q4_0"),
        (["--contexts", "512,-1"], "no list of whole numbers"),
        (["--kl", "fast"], "--kl fast is none of"),
        (["--chunk", "300"], "--chunk 300 is not between 4 and the model's 256"),
        (["--text", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused(run_folder: Path, options: list[str], words: str) -> None:
    refused(bench(run_folder, *options), words)


def test_help_needs_no_heavy_library() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom medmind_benchmarks.cli import app\n"
        "result = CliRunner().invoke(app, ['quants', '--help'])\nassert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'transformers', 'llama_cpp', 'matplotlib', 'gguf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_missing_extra_is_one_line(run_folder: Path) -> None:
    script = (
        "import sys\nsys.modules['matplotlib'] = None\nfrom medmind_benchmarks.cli import main\n"
        f"sys.argv = ['medmind-bench', 'quants', {str(run_folder)!r}]\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    refused(result, "pip install 'medmind[bench]'")
