"""Metrics that go elsewhere as well: TensorBoard's event files, Weights & Biases, and neither unless asked for."""

import json
import shutil
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from medmind import artifacts
from medmind_train import trackers
from medmind_train.metrics import StepMetrics


def events(folder: Path) -> dict[str, dict[int, float]]:
    """Scalars by name and step, as TensorBoard reads them: files in order, later values of a step winning."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16  # length and checksums
            if event.session_log.status == event.session_log.START:
                found = {name: {k: v for k, v in one.items() if k < event.step} for name, one in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_has_what_the_metrics_have_from_when_it_was_asked_for_and_over_a_resume(
    qlora, small, stopped_after
):
    run = stopped_after(1, *small("--validation-share", "0.2", "--eval-every", "2", "--name", "told"))
    assert not (run / "tensorboard").exists()
    stopped_after(3, "--resume", str(run), "--log-to", "tensorboard")
    shutil.rmtree(run / "checkpoints" / "step-3")  # step 2 and 3 are done, and told, once more
    result = qlora("--resume", str(run))
    assert result.code == 0 and f"tensorboard --logdir {run / 'tensorboard'}" in result.err
    lines = [line for line in artifacts.read_jsonl(run / "metrics.jsonl") if line["step"] > 1]
    scalars = events(run / "tensorboard")
    for name in ("loss", "lr", "tokens_per_s", "padding"):
        assert scalars[f"train/{name}"] == {line["step"]: pytest.approx(line[name]) for line in lines}
    evaluated = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in evaluated] == [2, 4]
    assert scalars["validation/loss"] == {line["step"]: pytest.approx(line["validation_loss"]) for line in evaluated}


def test_tensorboard_forgets_what_a_run_told_that_begins_again_at_step_0(tmp_path: Path):
    line = StepMetrics(1, 0.1, 2.0, 1e-3, 1.0, 4, 40, 20, 0.0, 10.0, 1.0, 1)
    for wait, steps in ((0.0, (1, 2)), (1.1, (1,))):
        time.sleep(wait)  # the name of a file of events has its second
        with trackers.logging("tensorboard", tmp_path, config={}, after=0) as log:
            for step in steps:
                log(replace(line, step=step))
    assert events(tmp_path / "tensorboard")["train/loss"] == {1: 2.0}


def test_wandb_is_told_by_its_own_interface(qlora, small, tmp_path: Path, monkeypatch):
    calls = []

    class Session:
        def define_metric(self, *names, **settings):
            calls.append(("define_metric", names))

        def log(self, values):
            calls.append(("log", values))

        def finish(self, exit_code):
            calls.append(("finish", exit_code))

    fake = ModuleType("wandb")
    fake.init = lambda **settings: calls.append(("init", settings)) or Session()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert qlora(*small("--log-to", "wandb, tensorboard", "--name", "told", "--max-steps", "2")).code == 0
    begun = dict(calls)["init"]
    assert (begun["id"], begun["resume"], begun["config"]["rank"]) == ("told", "allow", 4)
    assert Path(begun["dir"]) == Path("runs/told") and json.dumps(begun["config"])
    assert [values["step"] for kind, *rest in calls if kind == "log" for values in rest] == [1, 2]
    assert calls[-1] == ("finish", 0) and (tmp_path / "runs" / "told" / "tensorboard").is_dir()

    def refusing(**_):
        raise RuntimeError("api_key not configured (no-tty)")

    fake.init = refusing
    qlora(*small("--log-to", "wandb", "--name", "shy")).refused("api_key not configured", "wandb login")


def test_unknown_or_missing_tracker_is_one_line_before_any_work(qlora, small, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("medmind_train.qlora.read", lambda *_, **__: pytest.fail("work was begun"))
    qlora(*small("--log-to", "mlflow")).refused("--log-to cannot be 'mlflow'", "tensorboard, wandb")
    for module in ("wandb", "tensorboardX"):
        monkeypatch.setitem(sys.modules, module, None)
    qlora(*small("--log-to", "wandb")).refused("'wandb'", "not installed", "pip install wandb")
    qlora(*small("--log-to", "tensorboard")).refused("tensorboardX", "pip install 'medmind[tensorboard]'")
    assert not any(tmp_path.iterdir())
