"""A run in two real processes over gloo, started by torchrun, or as it does: the same run as in one."""

import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file

from medmind import artifacts
from medmind_train import distributed

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
FAULTY = Path(__file__).with_name("one_with_a_fault.py")
RUN = ("--max-steps", "6", "--validation-share", "0.2", "--eval-every", "2", "--patience", "2", "--eval-rows", "5")
INTERRUPT_AFTER = 2
"""Steps: of two passes in each process."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@pytest.fixture
def torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run `medmind-train` in two processes, with a fault ("what/rank/pass") in one of them where one is given."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments: str, fault: str | None = None) -> Ended:
        what = ["-m", "medmind_train.cli"] if fault is None else [str(FAULTY)]
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *what, *arguments],
            cwd=tmp_path,
            env=os.environ | {"FAULT": fault or "", "HF_HUB_OFFLINE": "1"},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def two_forks(tmp_path: Path) -> Callable[..., Ended]:
    """What torchrun does, without the time that three processes take to import torch."""

    def run(*arguments: str, fault: str) -> Ended:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        env |= {"FAULT": fault, "HF_HUB_OFFLINE": "1"}

        def start() -> None:
            torch.set_num_threads(1)  # OpenMP's other threads have stayed behind
            sys.argv = [str(FAULTY), *arguments]
            runpy.run_path(str(FAULTY), run_name="__main__")

        both = [
            forked.Forked(start, cwd=tmp_path, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(2)
        ]
        ended = [one.wait(120) for one in both]
        out, err = (b"".join(getattr(one, name) for one in ended).decode() for name in ("stdout", "stderr"))
        return Ended(next((one.returncode for one in ended if one.returncode), 0), out, err)

    return run


def assert_same(run: Path, other: Path) -> None:
    lines, others = (artifacts.read_jsonl(one / "metrics.jsonl") for one in (run, other))
    assert [line["step"] for line in lines] == [line["step"] for line in others] == [1, 2, 3, 4, 5, 6]
    for line, twin in zip(lines, others, strict=True):
        assert line.keys() == twin.keys()
        for name in line.keys() & {"loss", "grad_norm", "validation_loss", "validation_error"}:
            assert line[name] == pytest.approx(twin[name], rel=1e-5), (line["step"], name)
        for name in ("tokens", "supervised_tokens", "examples", "lr"):
            assert line[name] == twin[name]
    results, theirs = (artifacts.read_run(one)["results"] for one in (run, other))
    for when in ("before", "after"):
        assert results["perplexity"][when] == pytest.approx(theirs["perplexity"][when], rel=1e-5)
    assert results["chosen"]["step"] == theirs["chosen"]["step"] and results["tokens"] == theirs["tokens"]
    adapter, twins = (load_file(one / "adapter" / "adapter_model.safetensors") for one in (run, other))
    assert adapter.keys() == twins.keys()
    for name, tensor in adapter.items():
        torch.testing.assert_close(tensor, twins[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("two_forks", marks=pytest.mark.skipif(not forked.available, reason="this system has no fork")),
        pytest.param("torchrun", marks=pytest.mark.slow),
    ],
)
def test_run_of_two_is_stopped_by_a_signal_to_one_and_goes_on_in_one(qlora, small, request, tmp_path: Path, start: str):
    assert qlora(*small(*RUN, "--name", "whole")).code == 0
    at = 2 * INTERRUPT_AFTER + 1
    stopped = request.getfixturevalue(start)("qlora", *small(*RUN, "--name", "both"), fault=f"signal/1/{at}")
    way = "interrupted; go on with: torchrun --nproc-per-node 2 -m medmind_train.cli qlora --resume runs/both"
    assert stopped.code and stopped.err.count(way) == 1 and not stopped.errors, stopped.err
    assert stopped.err.count("held-out perplexity before") == 1 and stopped.out == ""
    run = tmp_path / "runs" / "both"
    assert [path.name for path in run.parent.iterdir() if path.name != "whole"] == ["both"]
    assert (run / "checkpoints" / f"step-{INTERRUPT_AFTER}").is_dir() and not list(run.rglob("*.partial"))
    rest = qlora("--resume", "runs/both", "--json")
    assert rest.code == 0 and json.loads(rest.out)["results"]["processes"] == 1, rest.err
    assert_same(run, run.with_name("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--packing",), ("--kernels", "fused")], ids=["packed", "fused step"])
def test_run_of_one_goes_on_in_two_with_the_same_curve(stopped_after, qlora, small, torchrun, more):
    settings = (*RUN, *more, "--batch", "4", "--accumulate", "1")
    assert qlora(*small(*settings, "--name", "whole")).code == 0
    run = stopped_after(2, *small(*settings, "--name", "both"))
    ended = torchrun("qlora", "--resume", str(run), "--json")
    document = json.loads(ended.out)
    assert document["results"]["processes"] == 2 and document["results"]["micro_batch"] == 2
    assert_same(run, run.with_name("whole"))


@pytest.mark.slow
def test_dropout_differs_between_processes_and_a_resume_goes_on_bit_for_bit(small, torchrun, tmp_path: Path):
    settings = ("qlora", *small(*RUN, "--dropout", "0.2"))
    for name in ("whole", "halves"):
        fault = f"signal/0/{2 * INTERRUPT_AFTER}" if name == "halves" else None
        ended = torchrun(*settings, "--name", name, fault=fault)
    again = torchrun("qlora", "--resume", "runs/halves")
    assert ended.code and again.code == 0, again.err
    whole, halves = (tmp_path / "runs" / name for name in ("whole", "halves"))
    states = load_file(next(whole.glob("checkpoints/step-*")) / "rng.safetensors")
    assert states.keys() == {"cpu", "cpu.1"} and not torch.equal(states["cpu"], states["cpu.1"])
    files = [one / "adapter" / "adapter_model.safetensors" for one in (whole, halves)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("not finite/1/3", ("the loss is nan", "on the rows", "checkpoint step-")),
        ("defect/1/3", ("process 1 has failed: ValueError",)),
        ("kill/1/3", ("another process of this run has ended", "torchrun --nproc-per-node 2", "--resume runs/bad")),
        ("kill/0/3", ("another process of this run has ended", "torchrun --nproc-per-node 2", "--resume runs/bad")),
    ],
)
def test_what_fails_in_one_ends_both_with_one_line(small, torchrun, fault: str, words: tuple[str, ...]):
    ended = torchrun("qlora", *small(*RUN, "--name", "bad"), fault=fault)
    assert ended.code == 1 and ended.out == "" and len(ended.errors) == 1, ended.err
    assert all(word in ended.errors[0] for word in words), ended.errors


@pytest.mark.slow
def test_memory_full_in_one_makes_both_take_fewer_rows(small, torchrun, tmp_path: Path):
    ended = torchrun("qlora", *small(*RUN, "--name", "tight", "--json"), fault="memory/1/3")
    assert ended.code == 0 and ended.err.count("the memory was full with 2 rows a pass") == 1, ended.err
    assert json.loads(ended.out)["results"]["micro_batch"] == 1


@pytest.mark.slow
def test_ctrl_c_at_the_launcher_is_one_checkpoint_and_one_line(small, torchrun, tmp_path: Path):
    ended = torchrun("qlora", *small(*RUN, "--name", "stopped"), fault="signal to the launcher/0/3")
    assert ended.code and ended.err.count("interrupted; go on with: torchrun") == 1 and not ended.errors, ended.err
    assert len(list((tmp_path / "runs" / "stopped" / "checkpoints").glob("step-*"))) == 1


@pytest.mark.slow
def test_bad_settings_are_said_once(small, torchrun):
    ended = torchrun("qlora", *small("--batch", "1", "--accumulate", "1"))
    assert len(ended.errors) == 1 and "2 processes cannot share an effective batch of 1 rows" in ended.errors[0]
    ended = torchrun("search", "--device", "cpu")
    assert len(ended.errors) == 1 and "search runs in one process, and 2 were started" in ended.errors[0]
    assert "start it without torchrun" in ended.errors[0]


def test_pass_takes_no_more_rows_than_a_process_has(monkeypatch: pytest.MonkeyPatch):
    assert distributed.rows_a_pass(8, 2) == 8
    monkeypatch.setattr(distributed, "world", lambda: (0, 3))
    assert [distributed.rows_a_pass(8, 1), distributed.rows_a_pass(1, 16), distributed.rows_a_pass(2, 8)] == [3, 1, 2]


@pytest.mark.slow
def test_base_in_pieces_gives_the_run_of_a_whole_one(qlora, small, torchrun, tmp_path: Path):
    # Three rows a step are two passes of one process and one of the other; five evaluated rows are shared unequally.
    settings = (
        "--batch",
        "1",
        "--accumulate",
        "3",
        "--gradient-checkpointing",
        "--answer-rows",
        "2",
        "--context",
        "96",
    )
    assert qlora(*small(*RUN, *settings, "--name", "whole")).code == 0
    ended = torchrun("qlora", *small(*RUN, *settings, "--shard", "--name", "pieces", "--json"), fault="look/1/2")
    assert ended.code == 0 and json.loads(ended.out)["results"]["processes"] == 2, ended.err
    pieces, whole = (tmp_path / "runs" / name for name in ("pieces", "whole"))
    assert_same(pieces, whole)
    samples = [artifacts.read_run(one)["results"]["samples"] for one in (pieces, whole)]
    assert samples[0] == samples[1] and samples[0]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill/1/3", "memory/1/3"])
def test_base_in_pieces_ends_for_all_when_one_has_gone(small, torchrun, fault: str):
    ended = torchrun("qlora", *small(*RUN, "--shard", "--name", "bad"), fault=fault)
    words = "the memory of" if "memory" in fault else "another process of this run has ended"
    assert ended.code == 1 and len(ended.errors) == 1 and words in ended.errors[0], ended.err


def test_base_in_pieces_wants_processes_and_no_dora(qlora, small, monkeypatch: pytest.MonkeyPatch):
    qlora(*small("--shard")).refused("--shard", "there is one", "torchrun")
    monkeypatch.setattr("medmind_train.sharding.world", lambda: (0, 2))
    qlora(*small("--shard", "--dora")).refused("--shard and --dora")
    qlora(*small("--shard", "--kernels", "fused")).refused("--shard", "--kernels reference")
