"""Choices while training: by validation rows, with patience, and the adapter of the step that was best."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medmind import artifacts
from medmind_train import checkpoint, evaluate
from medmind_train.early_stopping import EarlyStopping, chosen, sentences, settle
from medmind_train.evaluate import Perplexity
from medmind_train.qlora_config import QloraConfig

CHOOSING = ("--validation-share", "0.2", "--eval-every", "1", "--checkpoint-every", "1")


def measured(nll: float) -> Perplexity:
    return Perplexity(2.0, 0.1, nll, 100, 10)


def test_patience_counts_evaluations_in_a_row_without_a_better_one():
    stopping = EarlyStopping(2)
    improved = [stopping.improves(step, measured(nll)) for step, nll in enumerate([3.0, 2.0, 2.5, 1.9, 1.9, 2.0], 1)]
    assert improved == [True, True, False, True, False, False]
    assert stopping.exhausted and stopping.best and (stopping.best.step, stopping.best.loss) == (4, 1.9)
    assert stopping.best.error == pytest.approx(0.05)
    again = EarlyStopping(2)
    again.recall(json.loads(json.dumps(stopping.state())))
    assert again.best == stopping.best and again.exhausted
    assert not EarlyStopping(0).exhausted


def test_settings_that_choose_evaluate_though_not_told_how_often():
    assert settle(QloraConfig(), 500) == QloraConfig(keep="last")
    assert settle(QloraConfig(patience=3), 500) == QloraConfig(patience=3, keep="best", eval_every=25)
    assert settle(QloraConfig(keep="best"), 5) == QloraConfig(keep="best", eval_every=1)
    kept = QloraConfig(patience=3, keep="last", eval_every=7)
    assert settle(kept, 500) == kept


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Makes validation losses fall and rise again (3, 2, 2.5, 2.6, …); the rows of each evaluation."""
    real, seen = evaluate.measure, []

    def measure(passes, examples, **settings):
        seen.append({example.row for example in examples})
        perplexity, ends = real(passes, examples, **settings)
        if settings["description"].startswith("validation"):
            perplexity = measured([3.0, 2.0, 2.5, 2.6, 2.7][sum(rows == seen[-1] for rows in seen) - 1])
        return perplexity, ends

    monkeypatch.setattr(evaluate, "measure", measure)
    return seen


def test_run_stops_early_and_keeps_the_best_adapter(qlora, small, evaluations, tmp_path: Path):
    result = qlora(*small(*CHOOSING, "--patience", "2", "--max-steps", "9", "--name", "best", "--json"))
    assert result.code == 0, result.err
    run = tmp_path / "runs" / "best"
    choice = json.loads(result.out)["results"]["chosen"]
    assert choice == {
        "step": 2,
        "by": "validation loss",
        "best": {"step": 2, "loss": 2.0, "error": 0.05},
        "last": 4,
        "planned": 9,
        "stopped_early": True,
    }
    assert artifacts.read_run(run)["results"]["chosen"] == choice
    assert sentences(choice) == [
        "stopped early after step 4 of 9",
        "the adapter is that of step 2: validation loss 2.0000 ± 0.0500",
    ]
    told = (run / "report.md").read_text(encoding="utf-8").partition("## Result\n")[2].partition("\n## ")[0]
    assert (
        "Stopped early after step 4 of 9." in told and "The adapter is that of step 2: validation loss 2.0000" in told
    )
    assert "| adapter of step | 2, by validation loss |" in (run / "adapter" / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in (run / "checkpoints").glob("step-*")}
    assert folders == {"step-2", "step-3", "step-4"}
    best, last = (load_file(run / "checkpoints" / name / "adapter_model.safetensors") for name in ("step-2", "step-4"))
    kept = load_file(run / "adapter" / "adapter_model.safetensors")
    assert all((kept[name] == best[name]).all() for name in kept)
    assert any((kept[name] != last[name]).any() for name in kept)
    sides = {
        side: {row["id"] for row in artifacts.read_jsonl(run / f"{side}.jsonl")} for side in ("heldout", "validation")
    }
    before, *between, after = evaluations
    assert before == after == sides["heldout"] and len(between) == 4
    assert all(rows == sides["validation"] for rows in between)
    # A checkpoint is worth nothing without the best one that it needs.
    assert checkpoint.newest(run / "checkpoints") == (run / "checkpoints" / "step-4", [])
    (run / "checkpoints" / "step-2" / "rng.safetensors").write_bytes(b"")
    assert checkpoint.newest(run / "checkpoints") == (None, ["step-2"])


def test_last_adapter_is_kept_where_that_is_asked_for():
    stopping = EarlyStopping(1)
    for step, nll in enumerate([3.0, 2.0, 2.5], 1):
        stopping.improves(step, measured(nll))
    choice = chosen(stopping, QloraConfig(patience=1, keep="last"), 3, 4)
    assert (choice["step"], choice["by"], choice["best"]["step"], choice["last"]) == (3, "last step", 2, 3)
    assert "the adapter is the last one; best was step 2" in sentences(choice)[1]
    assert sentences(chosen(EarlyStopping(0), QloraConfig(keep="last"), 4, 4)) == []


def test_data_without_validation_rows_is_refused_with_the_setting(qlora, small, tmp_path: Path):
    qlora(*small("--keep", "best", "--validation-share", "0")).refused("no validation row", "--validation-share 0.1")
    assert not any(tmp_path.iterdir())
