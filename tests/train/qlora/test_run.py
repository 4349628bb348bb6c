"""Whole runs of the command: what they leave behind, how they go on after a stop, and what they refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medmind import artifacts
from medmind.base import EMBEDDED_PATH, Base, fingerprint
from medmind_train import loop, model_card, passes
from medmind_train.hardware import Hardware

from .conftest import call


def adapter_bytes(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def lines(run: Path) -> list[dict]:
    return artifacts.read_jsonl(run / "metrics.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data: Path):
    """One run on the embedded base, asked for as by a script: its directory, its JSON, and what it told."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = (
        f"--base medmind-base --data {data} --heldout-share 0.3 --context 64 --epochs 2 --batch 2 "
        "--accumulate 2 --rank 4 --device cpu --validation-share 0.2 --answer-rows 2 --sample-answers 2 "
        "--price-per-hour 36 --eval-every 2 --lr 2e-3 "
        "--name first --json --system Answer_briefly."
    )
    done = call(folder, *arguments.split())
    assert done.code == 0, done.err
    return folder / "runs" / "first", json.loads(done.out), done.err


def test_run_directory_holds_all_that_the_next_stage_needs(finished):
    run, document, _ = finished
    manifest = artifacts.read_run(run)
    adapter_config = json.loads((run / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter_config["base_model_name_or_path"] == "medmind-base"
    assert adapter_config["target_modules"] == sorted(adapter_config["target_modules"])
    assert manifest["base"]["digest"] == fingerprint(EMBEDDED_PATH)
    digest = artifacts.adapter_digest(run / "adapter")
    assert manifest["adapter"] == {"path": "adapter", "digest": digest, "trained_on": "nf4"}
    assert (manifest["system_prompt"], manifest["context"], manifest["seed"]) == ("Answer_briefly.", 64, 42)
    assert manifest["config"]["optimizer"] == "adamw" and manifest["config"]["dtype"] == "float32"
    assert manifest["results"] == document["results"] and document["run"] == str(Path("runs/first"))
    assert not list(run.rglob("*.partial"))
    assert not list(run.rglob("*.bin")) + list(run.rglob("*.pt"))


def test_heldout_rows_are_written_whole_and_not_trained_on(finished, data: Path):
    run, document, _ = finished
    heldout = artifacts.read_jsonl(run / "heldout.jsonl")
    assert len(heldout) == document["data"]["counts"]["heldout"] > 0
    assert all(one["messages"][-1]["role"] == "assistant" for one in heldout)
    asked = {one["messages"][0]["content"] for one in heldout}
    everything = {row["question"] for row in artifacts.read_jsonl(data)}
    validation = {one["messages"][0]["content"] for one in artifacts.read_jsonl(run / "validation.jsonl")}
    assert validation and not validation & asked and validation | asked < everything
    assert len(everything) - len(asked) - len(validation) == document["data"]["counts"]["train"]


def test_training_on_the_data_lowers_heldout_perplexity_beyond_its_error(finished):
    run, document, _ = finished
    before, after = (document["results"]["perplexity"][when] for when in ("before", "after"))
    assert before["value"] - after["value"] > before["error"] + after["error"]
    report = (run / "report.md").read_text(encoding="utf-8")
    assert f"held-out perplexity {before['value']:.1f} → {after['value']:.1f}" in report


def test_report_has_answers_cost_and_a_full_fine_tune_beside_it(finished):
    run, document, _ = finished
    results = document["results"]
    report = (run / "report.md").read_text(encoding="utf-8")
    heldout = {row["id"]: row for row in artifacts.read_jsonl(run / "heldout.jsonl")}
    assert len(results["samples"]) == 2
    for sample in results["samples"]:
        assert sample["question"] == heldout[sample["row"]]["messages"][-2]["content"]
        assert sample["expected"] == heldout[sample["row"]]["messages"][-1]["content"] in report
        assert sample["before"]["text"] != sample["after"]["text"]
    kept = artifacts.read_json(run / "checkpoints" / "start.json")["samples"]
    assert [one["text"] for one in kept] == [sample["before"]["text"] for sample in results["samples"]]
    took = results["footprint"]
    assert took["energy"] is None and "| energy of the card | not measured |" in report
    hours = sum(results["seconds"].values()) / 3600
    assert took["price"] == {"per_hour": 36.0, "hours": hours, "total": 36 * hours}
    full = took["full_fine_tuning"]
    # weights, gradients and two moments of all parameters in fp32, and the activations of 2 × 64 tokens
    parameters = artifacts.read_json(EMBEDDED_PATH / "pretrain.json")["parameters"]
    assert full["memory"] > 16 * parameters > took["memory"]["peak"] and 1 < full["computing"] < 8 / 6
    assert "an estimate" in report and "| torch | " in report


def test_model_card_is_one_of_the_hubs(finished):
    from huggingface_hub import ModelCard

    run, document, _ = finished
    card = ModelCard.load(run / "adapter" / "README.md")
    after = document["results"]["perplexity"]["after"]
    assert (card.data.library_name, card.data.base_model, card.data.pipeline_tag) == (
        "peft",
        "medmind-base",
        "text-generation",
    )
    assert card.data.license == "cc-by-sa-4.0" and {"lora", "qlora"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("perplexity", round(after["value"], 4))
    counts = document["data"]["counts"]
    for words in ("Not a medical device", "emergency", f"{counts['train']} rows to learn from", "Answer_briefly."):
        assert words in card.text
    assert str(run.parent.parent) not in card.content  # no folder of this machine is told to the hub
    source = artifacts.read_run(run)["data"]["source"]
    assert Path(source).is_absolute() and str(Path(source).parent) not in card.content
    assert result.dataset_name == "small.jsonl, held out" and result.dataset_type == "small.jsonl"
    assert "answers (small.jsonl) by" in card.text and "\nsmall.jsonl (`" in card.text


@pytest.mark.parametrize(
    ("source", "where", "named", "on_hub"),
    [
        ("medquad", "/home/x/MedQuAD", "medquad", None),
        ("medquad", "lavita/MedQuAD", "medquad", ["lavita/MedQuAD"]),
        ("owner/name", "owner/name", "owner/name", ["owner/name"]),
        ("/home/x/patients/", "/home/x/patients", "patients", None),
        ("gone/patients.jsonl", "gone/patients.jsonl", "patients.jsonl", None),
    ],
)
def test_model_card_names_data_without_its_place(finished, source: str, where: str, named: str, on_hub: list | None):
    from huggingface_hub import ModelCard

    manifest = artifacts.read_run(finished[0])
    card = ModelCard(model_card.markdown({**manifest, "data": {**manifest["data"], "source": source, "where": where}}))
    assert f"answers ({named}) by" in card.text and f"\n{named} (`" in card.text and card.data.datasets == on_hub
    assert card.data.eval_results[0].dataset_name == f"{named}, held out"
    assert "/home/" not in card.content and "gone" not in card.content


def test_metrics_have_a_line_a_step_with_everything_in_it(finished):
    run, document, _ = finished
    steps = lines(run)
    assert [line["step"] for line in steps] == list(range(1, document["results"]["steps"] + 1))
    wanted = {"loss", "lr", "grad_norm", "tokens", "supervised_tokens", "tokens_per_s", "seconds", "memory", "padding"}
    assert all(wanted <= line.keys() for line in steps)
    assert steps[1]["validation_loss"] > 0 and steps[1]["validation_error"] > 0
    trained = document["results"]["encoding"]["train"]
    assert sum(line["supervised_tokens"] for line in steps) == 2 * trained["supervised_tokens"]
    assert sum(line["tokens"] for line in steps) == 2 * trained["tokens"] == document["results"]["tokens"]


def test_progress_is_told_in_plain_lines_where_there_is_no_terminal(finished):
    _, document, told = finished
    assert f"step 1/{document['results']['steps']}" in told and "tokens/s" in told and "left" in told
    assert "held-out perplexity before" in told


def test_loss_curve_is_a_picture(finished):
    run, _, _ = finished
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG") and (run / "loss.png").stat().st_size > 5000


def test_torn_checkpoint_is_skipped_for_the_one_before(qlora, small, tmp_path: Path):
    assert qlora(*small("--name", "whole", "--checkpoint-every", "2")).code == 0
    whole, torn = tmp_path / "runs" / "whole", tmp_path / "runs" / "torn"
    shutil.copytree(whole, torn)
    (torn / "medmind.json").unlink()
    shutil.rmtree(torn / "adapter")
    with (torn / "checkpoints" / "step-4" / "optimizer.safetensors").open("r+b") as file:
        file.truncate(100)
    result = qlora("--resume", "runs/torn")
    assert result.code == 0, result.err
    assert "step-4 is torn" in result.err and "going on after step 2" in result.err
    assert adapter_bytes(torn) == adapter_bytes(whole)
    assert sorted(path.name for path in (torn / "checkpoints").glob("step-*")) == ["step-2", "step-4"]


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}
windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")


def assert_stopped_by(number: signal.Signals, code: int, out: str, told: str, run: Path) -> None:
    assert code == SIGNALS[number], told
    assert out == "" and told.rstrip().endswith(f"medmind-train qlora --resume {Path('runs/long')}")
    assert not (run / "medmind.json").exists()
    (saved,) = (run / "checkpoints").glob("step-*")
    assert saved.name == f"step-{len(lines(run))}"


@windows
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_writes_a_checkpoint_and_prints_how_to_go_on(qlora, small, tmp_path: Path, monkeypatch, number):
    real = loop.Trainer._step

    def step(self, interrupt):
        if self.position.step == 2:
            os.kill(os.getpid(), number)
        return real(self, interrupt)

    monkeypatch.setattr(loop.Trainer, "_step", step)
    done = qlora(*small("--checkpoint-every", "0", "--name", "long"))
    assert_stopped_by(number, done.code, done.out, done.err, tmp_path / "runs" / "long")


@pytest.mark.slow
@windows
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_from_outside_does_the_same_at_any_moment(small, command, tmp_path: Path, number: signal.Signals):
    process = subprocess.Popen(
        command(*small("--max-steps", "5000", "--checkpoint-every", "0", "--name", "long")),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    run = tmp_path / "runs" / "long"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not ((run / "metrics.jsonl").exists() and len(lines(run)) > 1):
        time.sleep(0.05)
    process.send_signal(number)
    out, told = process.communicate(timeout=120)
    assert_stopped_by(number, process.returncode, out, told, run)


def test_loss_that_is_not_finite_stops_with_step_rows_and_a_checkpoint(qlora, small, tmp_path: Path, monkeypatch):
    real, calls = passes.answer_nll, []

    def broken(model, batch):
        nll, owners = real(model, batch)
        calls.append(batch.rows)
        return (nll * float("nan") if len(calls) == 2 else nll), owners

    monkeypatch.setattr(passes, "answer_nll", broken)
    result = qlora(*small("--name", "nan", "--accumulate", "1"))
    result.refused("step 2", "nan", *calls[1], "checkpoint step-1")
    assert (tmp_path / "runs" / "nan" / "checkpoints" / "step-1" / "state.json").exists()
    assert not (tmp_path / "runs" / "nan" / "medmind.json").exists()
    monkeypatch.setattr(passes, "answer_nll", real)
    assert qlora("--resume", "runs/nan").code == 0


def test_resume_with_other_settings_is_refused_with_the_difference(qlora, unfinished: Path):
    before = sorted(path for path in unfinished.rglob("*"))
    qlora("--resume", "runs/begun", "--rank", "8").refused("--rank 4, not 8")
    assert sorted(path for path in unfinished.rglob("*")) == before
    assert qlora("--resume", "runs/begun", "--rank", "4").code == 0
    (sample,) = artifacts.read_run(unfinished)["results"]["samples"]  # what the base said was not lost
    assert sample["before"]["text"] and sample["before"] != sample["after"]
    qlora("--resume", "runs/begun").refused("is finished")


def test_resume_with_other_data_is_refused(qlora, unfinished: Path, data: Path):
    before = data.read_text(encoding="utf-8")
    data.write_text(before.replace("fades", "goes"), encoding="utf-8")
    try:
        qlora("--resume", "runs/begun").refused("data", "has changed", str(data))
    finally:
        data.write_text(before, encoding="utf-8")


def test_resume_with_another_base_is_refused(qlora, small, small_base: Base, stopped_after, tmp_path: Path):
    base = tmp_path / "base"
    shutil.copytree(small_base.path, base)
    run = stopped_after(2, *small("--base", "base", "--name", "begun"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}), encoding="utf-8")
    qlora("--resume", str(run)).refused("base (base)", "has changed")


def test_resume_after_an_edit_of_the_config_is_refused_with_the_difference(qlora, unfinished: Path):
    text = (unfinished / "config.yaml").read_text(encoding="utf-8")
    (unfinished / "config.yaml").write_text(text.replace("rank: 4", "rank: 2"), encoding="utf-8")
    qlora("--resume", "runs/begun").refused("config.yaml has rank: 2", "began with 4")
    (unfinished / "config.yaml").write_text(text.replace("checkpoint_every: 50", "checkpoint_every: 1"), "utf-8")
    assert qlora("--resume", "runs/begun").code == 0


def test_taken_name_is_refused_before_any_work_and_force_replaces_it(qlora, small, unfinished: Path, monkeypatch):
    mark = unfinished / "mark"
    mark.touch()
    with monkeypatch.context() as patched:
        patched.setattr("medmind_train.qlora.read", lambda *_, **__: pytest.fail("work was begun"))
        qlora(*small("--name", "begun")).refused("exists already", "--force", "--resume")
    assert mark.exists()
    assert qlora(*small("--name", "begun", "--force")).code == 0
    assert not mark.exists() and (unfinished / "medmind.json").exists()


def test_force_replaces_nothing_that_is_not_a_run(qlora, small, tmp_path: Path):
    precious = tmp_path / "runs" / "photos" / "cat.jpg"
    precious.parent.mkdir(parents=True)
    precious.touch()
    qlora(*small("--name", "photos", "--force")).refused("is no medmind run")
    assert precious.exists()


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "-x", "a b", "medmind-tiny"])
def test_name_that_is_no_plain_name_or_taken_by_the_embedded_run_is_refused(qlora, small, name: str, tmp_path: Path):
    qlora(*small(f"--name={name}")).refused("--name")
    assert not any(tmp_path.iterdir())


def _change(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _other_architecture(folder: Path) -> None:
    _change(folder, architectures=["GPT2LMHeadModel"])


def _wrong_sizes(folder: Path) -> None:
    _change(folder, intermediate_size=1024)


def _more_layers(folder: Path) -> None:
    _change(folder, num_hidden_layers=9)


def _quantized_already(folder: Path) -> None:
    _change(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def _no_template(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_config, ("config.json",)),
        (_pickle_only, ("pickle",)),
        (_other_architecture, ("GPT2LMHeadModel", "not support")),
        (_wrong_sizes, ("do not fit its config.json",)),
        (_more_layers, ("do not fit its config.json",)),
        (_quantized_already, ("quantized already",)),
        (_no_template, ("no chat template",)),
    ],
)
def test_unusable_base_is_one_line_and_leaves_nothing(qlora, small, small_base: Base, tmp_path: Path, spoil, words):
    spoil(shutil.copytree(small_base.path, tmp_path / "base"))
    qlora(*small("--base", "base")).refused(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_bad_data_or_context_is_one_line_and_leaves_nothing(qlora, small, tmp_path: Path):
    (tmp_path / "empty.jsonl").touch()
    qlora(*small("--data", "empty.jsonl")).refused("empty.jsonl")
    qlora(*small("--data", "nowhere.jsonl")).refused("nowhere.jsonl")
    qlora(*small("--context", "8")).refused("no training example is left", "--context")
    qlora(*small("--context", "1000000")).refused("--context 1000000", "positions")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


@pytest.mark.parametrize("missing", ["peft", "bitsandbytes"])
def test_missing_extra_is_its_install_line(qlora, small, monkeypatch, missing: str, tmp_path: Path):
    monkeypatch.setitem(sys.modules, missing, None)
    qlora(*small()).refused(missing, "pip install 'medmind[train]'")
    assert not any(tmp_path.iterdir())


def test_too_small_a_disk_is_refused_before_anything_is_written(qlora, small, monkeypatch, tmp_path: Path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    qlora(*small()).refused("free")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("machine", "base", "source"),
    [
        (Hardware("cuda", "Card 8 GB", 8 << 30, (8, 6)), "mistralai/Mistral-7B-Instruct-v0.3", "medquad"),
        (Hardware("cpu", "Chip", 8 << 30), "medmind-base", "sample"),
    ],
)
def test_bare_command_takes_the_recipe_of_the_machine_and_says_so(qlora, monkeypatch, machine, base, source):
    from medmind.errors import MedmindError

    chosen = []

    def reading(config, described, *, assume_yes):
        chosen.append((config.base, config.data, described))

    def training(run, inputs, *, recorded):
        raise MedmindError("enough")

    monkeypatch.setattr("medmind_train.hardware.describe", lambda wanted: machine)
    monkeypatch.setattr("medmind_train.qlora.read", reading)
    monkeypatch.setattr("medmind_train.qlora._train", training)
    result = qlora()
    assert chosen == [(base, source, machine)]
    assert f"fine-tuning {base} on {source}" in result.err and "--base" in result.err


def test_fused_step_trains_saves_and_resumes_as_the_plain_one(qlora, small, tmp_path: Path):
    plain = qlora(*small("--name", "plain", "--json"))
    fused = qlora(*small("--name", "fused", "--kernels", "fused", "--checkpoint-every", "2", "--json"))
    before, after = (json.loads(result.out)["results"] for result in (plain, fused))
    for when in ("before", "after"):
        assert after["perplexity"][when]["value"] == pytest.approx(before["perplexity"][when]["value"], rel=1e-3)
    runs = tmp_path / "runs"
    names = [set(load_file(runs / run / "adapter" / "adapter_model.safetensors")) for run in ("plain", "fused")]
    assert names[0] == names[1] and len(names[0]) == 2 * 7 * 2
    (runs / "fused" / "medmind.json").unlink()
    shutil.rmtree(runs / "fused" / "checkpoints" / "step-4")
    saved = (runs / "fused" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert qlora("--resume", "runs/fused").code == 0
    assert (runs / "fused" / "adapter" / "adapter_model.safetensors").read_bytes() == saved


def test_a_run_goes_on_with_another_price_and_other_answer_rows(qlora, unfinished: Path):
    result = qlora("--resume", "runs/begun", "--price-per-hour", "2.5", "--answer-rows", "0", "--json")
    assert result.code == 0, result.err
    results = json.loads(result.out)["results"]
    assert results["footprint"]["price"]["per_hour"] == 2.5 and results["samples"] == []
