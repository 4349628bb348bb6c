"""The chain as a user types it: bare commands, in an empty folder, on the embedded base and sample."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from medmind import embedded

SCRIPTS = Path(sysconfig.get_path("scripts"))


def command(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [SCRIPTS / name, *arguments],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was trained and converted."""
    folder = tmp_path_factory.mktemp("user")
    trained = command(folder, "medmind-train", "qlora", "--max-steps", "2", "--answer-rows", "0")
    assert "medmind-base on sample" in trained.stderr
    assert "held-out perplexity" in trained.stdout
    converted = command(folder, "medmind-convert", "gguf", "q8_0", "q4_k_m")
    assert ".q4_k_m.gguf" in converted.stdout
    return folder


def test_a_converted_model_answers_and_says_which_it_is(folder: Path) -> None:
    done = command(folder, "medmind-chat", "-p", "What is asthma?", "--max-tokens", "16")
    assert done.stdout.strip()
    assert ".q4_k_m.gguf" in done.stderr  # named last, so the newest


def test_the_embedded_run_answers_without_training(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in embedded.FOLDER.rglob("*")}
    command(tmp_path, "medmind-convert", "gguf", "q8_0", "medmind-tiny")
    answer = json.loads(
        command(tmp_path, "medmind-chat", "-p", "What is asthma?", "--max-tokens", "16", "--json").stdout
    )
    assert answer["answer"].strip()
    manifest = json.loads((embedded.FOLDER / embedded.TUNED / "medmind.json").read_text(encoding="utf-8"))
    assert answer["model"]["medmind.run"] == "medmind-tiny"
    for part in ("base", "adapter", "data"):
        assert answer["model"][f"medmind.{part}.digest"] == manifest[part]["digest"]
    assert {path.name for path in (tmp_path / "runs" / "medmind-tiny").iterdir()} == {
        "medmind-tiny.q8_0.gguf",
        "medmind-tiny.md",
        "medmind-tiny.Modelfile",
    }
    assert {path: path.stat().st_mtime_ns for path in embedded.FOLDER.rglob("*")} == before


def test_the_file_carries_the_lineage_of_its_run(folder: Path) -> None:
    (run,) = (folder / "runs").iterdir()
    manifest = json.loads((run / "medmind.json").read_text(encoding="utf-8"))
    answer = json.loads(command(folder, "medmind-chat", "--json", "-p", "Hello", "--max-tokens", "4").stdout)
    model = answer["model"]
    assert model["medmind.run"] == manifest["name"]
    assert model["medmind.base.digest"] == manifest["base"]["digest"]
    assert model["medmind.adapter.digest"] == manifest["adapter"]["digest"]
    assert model["medmind.data.digest"] == manifest["data"]["digest"]


def test_the_benchmark_of_the_reference_file_agrees_with_training(folder: Path) -> None:
    """NF4 with an adapter and the merged file are not the same model, but near: within 10 % in perplexity."""
    (run,) = (folder / "runs").iterdir()
    manifest = json.loads((run / "medmind.json").read_text(encoding="utf-8"))
    measured = command(folder, "medmind-bench", "quants", "--json", "--quick", "--measure", "answers", "--threads", "1")
    report = json.loads(measured.stdout)
    trained = manifest["results"]["perplexity"]["after"]
    (reference,) = [level for level in report["levels"] if level["label"] == "q8_0"]
    assert report["held_out"]["tokens"] == trained["tokens"]
    assert reference["figures"]["answers"]["perplexity"]["value"] == pytest.approx(trained["value"], rel=0.1)
    assert {level["label"] for level in report["levels"]} == {"q8_0", "q4_k_m"}
    assert (run / "benchmark" / "report.md").exists()


@pytest.mark.slow
def test_where_quality_was_lost_is_told_and_two_engines_agree_on_the_same_weights(folder: Path) -> None:
    command(folder, "medmind-convert", "gguf", "f16")
    done = command(folder, "medmind-bench", "chain", "--tokens", "700", "--threads", "1", "--json")
    report = json.loads(done.stdout)
    steps = {step["label"]: step for step in report["steps"]}
    assert list(steps) == ["base", "trained", "merged", "merged-nf4", "f16", "q8_0", "q4_k_m"]
    assert {step["status"] for step in report["steps"]} == {"measured"}
    (one,) = report["agreement"]
    assert one["label"] == "f16" and one["agrees"] and abs(one["difference"]) < 0.001
    kl = {label: step["divergence"]["mean"]["value"] for label, step in steps.items() if step["divergence"]}
    assert steps["f16"]["before"] == "merged-nf4"  # a run is merged onto what it was trained on
    assert 0 < kl["merged-nf4"] < kl["merged"] / 10 and abs(kl["f16"]) < kl["merged"] / 10
    assert kl["merged"] < kl["base"] and kl["f16"] < kl["q4_k_m"]
    (run,) = (folder / "runs").iterdir()
    assert (run / "chain" / "chain.md").exists() and not (run / "chain.cells").exists()
