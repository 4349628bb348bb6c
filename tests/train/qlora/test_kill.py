"""A run that dies at any moment, and what goes on from what it left: bit for bit the run that was left alone."""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from medmind import artifacts

RUN = (
    "--max-steps",
    "5",
    "--checkpoint-every",
    "2",
    "--dropout",
    "0.1",
    "--lr",
    "5e-3",
    "--context",
    "64",
    "--eval-rows",
    "4",
)
CHOOSING = ("--validation-share", "0.2", "--eval-every", "1", "--patience", "2")
KINDS = {"packed": (*RUN, "--packing"), "padded, choosing": (*RUN, "--batch", "1", "--accumulate", "3", *CHOOSING)}


class Moments:
    """Copies of a run directory as a kill would have left it: at some of the moments at which something is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Path, chosen: set[int]) -> None:
        self.left: list[Path] = []
        self._run = run
        self._chosen = chosen
        self._seen = 0
        real_sync, real_replace, real_write = os.fsync, Path.replace, Path.write_bytes

        def sync(descriptor: int) -> None:
            self._may_die()
            real_sync(descriptor)

        def replace(path: Path, target: Path) -> Path:
            self._may_die()
            return real_replace(path, target)

        def write(path: Path, data: bytes) -> int:
            real_write(path, data[: len(data) // 2])
            self._may_die()
            return real_write(path, data)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(Path, "write_bytes", write)

    def _may_die(self) -> None:
        if (self._run / "metrics.jsonl").exists():
            if self._seen in self._chosen:
                left = self._run.with_name(f"left-{self._seen}")
                shutil.copytree(self._run, left)
                with (left / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write('{"step": 99, "lo')
                self.left.append(left)
            self._seen += 1


def outcome(run: Path) -> tuple[bytes, list[tuple], dict]:
    lines = artifacts.read_jsonl(run / "metrics.jsonl")
    steps = [(line["step"], line["loss"], line["grad_norm"], line.get("validation_loss")) for line in lines]
    results = artifacts.read_run(run)["results"]
    kept = {name: results[name] for name in ("chosen", "perplexity", "steps", "tokens", "padding")}
    return (run / "adapter" / "adapter_model.safetensors").read_bytes(), steps, kept


@pytest.mark.parametrize("kind", ["packed", pytest.param("padded, choosing", marks=pytest.mark.slow)])
def test_what_a_kill_leaves_at_any_moment_goes_on_to_the_same_end(qlora, small, tmp_path, monkeypatch, kind: str):
    whole = tmp_path / "runs" / "whole"
    with monkeypatch.context() as patched:
        moments = Moments(patched, whole, set(random.Random(kind).sample(range(30), 2)))
        assert qlora(*small(*KINDS[kind], "--name", "whole")).code == 0
    assert len(moments.left) == 2
    expected = outcome(whole)
    for left in moments.left:
        shutil.rmtree(left / "adapter", ignore_errors=True)
        (left / "medmind.json").unlink(missing_ok=True)
        result = qlora("--resume", str(left))
        assert result.code == 0, result.err
        assert outcome(left) == expected, left.name
        assert not list(left.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_process_killed_again_and_again_ends_with_the_bit_identical_adapter(
    qlora, small, command, tmp_path: Path, kind: str
):
    longer = (*KINDS[kind], "--max-steps", "40")
    if "--patience" in longer:
        longer = (*longer, "--patience", "30")
    assert qlora(*small(*longer, "--name", "whole")).code == 0
    killed, source = tmp_path / "runs" / "killed", random.Random(kind)
    arguments = small(*longer, "--name", "killed")
    reached = []
    while not (killed / "medmind.json").exists():
        process = subprocess.Popen(
            command(*arguments), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        before = _written(killed)
        while len(reached) < 5 and process.poll() is None and _written(killed) == before:
            time.sleep(0.001)
        if len(reached) < 5:
            time.sleep(source.random() / 2)
            process.kill()
        told = process.communicate(timeout=300)[1]
        assert process.returncode in (0, -9), told
        reached.append(_written(killed))
        if killed.exists():
            arguments = ["--resume", "runs/killed"]
    assert len(reached) > 3, "it was faster than the kills: nothing would be tested"
    assert outcome(killed) == outcome(tmp_path / "runs" / "whole")


def _written(run: Path) -> tuple[int, list[str]]:
    """What tells that a run has come further."""
    metrics = run / "metrics.jsonl"
    folder = run / "checkpoints"
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return metrics.stat().st_size if metrics.exists() else 0, names
