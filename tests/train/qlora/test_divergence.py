"""A loss that rises, and one that only looks like it."""

import json
import random
from pathlib import Path

import pytest

from medmind import artifacts
from medmind_train import passes
from medmind_train.divergence import LossWatch


def first_alarm(losses, patience: int = 20, factor: float = 1.5) -> int | None:
    watch = LossWatch(patience, factor)
    return next((step for step, loss in enumerate(losses, 1) if watch.rising(loss)), None)


def noisy(*levels: float, steps: int = 100) -> list[float]:
    source = random.Random(1)
    return [level * source.lognormvariate(0, 0.3) for level in levels for _ in range(steps)]


def test_loss_far_above_its_best_for_long_enough_is_rising():
    alarm = first_alarm(noisy(2.0, 5.0))
    assert alarm is not None and 100 + 20 <= alarm < 100 + 20 + 32


@pytest.mark.parametrize(
    "losses",
    [
        noisy(3.0, 2.0, 1.5),
        noisy(2.0, 2.4),
        [*noisy(2.0), *[9.0] * 7, *noisy(2.0)],
        noisy(0.02, 0.08),
        [2.0] * 100 + [5.0] * 20 + [2.0] * 100,
    ],
    ids=["falls", "a little higher", "a short spike", "near zero", "comes back in time"],
)
def test_other_losses_are_not_rising(losses):
    assert first_alarm(losses, patience=30) is None


def test_zero_patience_never_stops():
    assert first_alarm(noisy(2.0, 50.0), patience=0) is None


def test_patience_begins_anew_after_a_resume_and_the_best_is_remembered():
    watch = LossWatch(20, 1.5)
    watch.recall([2.0] * 50 + [5.0] * 25)
    assert watch.best == 2.0
    alarm = next(step for step in range(1, 100) if watch.rising(5.0))
    assert alarm == 20


def test_rising_loss_stops_the_run_with_step_rows_and_a_checkpoint(qlora, small, tmp_path: Path, monkeypatch):
    real, calls = passes.answer_nll, []

    def climbing(model, batch):
        nll, owners = real(model, batch)
        calls.append(batch.rows)
        return (nll * 5 if len(calls) > 34 else nll), owners

    monkeypatch.setattr(passes, "answer_nll", climbing)
    more = ("--max-steps", "70", "--batch", "1", "--accumulate", "1", "--rising-steps", "4", "--lr", "1e-5")
    result = qlora(*small("--name", "up", *more))
    run = tmp_path / "runs" / "up"
    stopped = artifacts.read_json(run / "stopped.json")
    step = stopped["step"]
    assert 38 <= step < 60
    result.refused(f"step {step}", "rising", *calls[step - 1], f"checkpoint step-{step}", "--rising-steps")
    assert stopped["rows"] == list(calls[step - 1])
    assert (run / "checkpoints" / f"step-{step}" / "state.json").exists() and not (run / "medmind.json").exists()
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == step
