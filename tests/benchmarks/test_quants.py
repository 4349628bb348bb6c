"""`medmind-bench quants` from end to end, on small real models: what it finds, measures and reports."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bench_model
import pytest
from bench_quants import QUICK, SHORT, bench, planned, refused

from medmind.artifacts import HELDOUT
from medmind.errors import MedmindError
from medmind_benchmarks import markdown, plan, results, sources
from medmind_benchmarks.config import QuantsConfig


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


def test_the_system_prompt_of_the_models_is_part_of_what_is_scored(run_folder: Path) -> None:
    plain = planned(run_folder).texts.held_out
    for file in run_folder.glob("*.gguf"):
        file.unlink()
    bench_model.write(run_folder / "framed.gguf", system="Answer.", template=bench_model.FRAMED)
    framed = planned(run_folder).texts.held_out
    assert plain and framed and framed.token_digest != plain.token_digest


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


def test_memory_and_speed_need_no_held_out_set(run_folder: Path) -> None:
    (run_folder / HELDOUT).unlink()
    result = bench(run_folder, *SHORT, "--measure", "memory", "--random-weights", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["random_weights"] is True and document["held_out"] is None


def test_help_needs_no_heavy_library() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom medmind_benchmarks.cli import app\n"
        "result = CliRunner().invoke(app, ['quants', '--help'])\nassert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'transformers', 'llama_cpp', 'matplotlib', 'gguf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
