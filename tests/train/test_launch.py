"""What the variables of torchrun and accelerate mean, and what is typed to go on."""

import sys
from pathlib import Path

import pytest

from medmind.errors import MedmindError
from medmind_train import cli, launch

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch):
    def start(**variables: str) -> None:
        for name, value in (TORCHRUN | variables).items():
            monkeypatch.setenv(name, value)

    return start


def test_alone_nothing_changes(monkeypatch: pytest.MonkeyPatch, started):
    assert launch.read().size == 1 and launch.resume_command(Path("runs/a b")) == (
        "medmind-train qlora --resume 'runs/a b'"
    )
    monkeypatch.setenv("WORLD_SIZE", "4")  # as some schedulers set it, for one process
    assert launch.read() == launch.Launch()
    started(WORLD_SIZE="1", RANK="0")
    assert launch.read() == launch.Launch()


def test_one_of_eight_on_two_machines(started):
    started()
    assert launch.read() == launch.Launch(rank=5, size=8, local_rank=1, local_size=4)
    assert launch.resume_command(Path("runs/a")) == (
        "torchrun --nnodes 2 --nproc-per-node 4 -m medmind_train.cli qlora --resume runs/a"
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "first"}, "cannot be read"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
    ],
)
def test_what_cannot_be_is_refused(started, variables: dict[str, str], words: str):
    started(**variables)
    with pytest.raises(MedmindError, match=words):
        launch.read()
        launch.check("qlora")


def test_only_qlora_is_for_several(started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    started(RANK="0")
    monkeypatch.setattr(sys, "argv", ["medmind-train", "search", "--data", "sample"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert "medmind-train search runs in one process, and 8 were started" in capsys.readouterr().err
