"""A disk that fills while a run writes: one line, nothing whole is lost, and the run goes on when there is space."""

import errno
import os
from pathlib import Path

import pytest

from medmind import artifacts
from medmind_train import checkpoint


def test_disk_that_fills_in_a_checkpoint_leaves_the_one_before(qlora, small, tmp_path: Path, monkeypatch):
    arguments = small("--checkpoint-every", "1")
    real = checkpoint.write_tensors

    def full(path, tensors):
        if "step-3" in str(path) and path.name.startswith("optimizer"):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, tensors)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_tensors", full)
        qlora(*arguments, "--name", "full").refused("disk of", "is full", "--resume runs/full")
    run = tmp_path / "runs" / "full"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"start.json", "step-1", "step-2"}
    assert [line["step"] for line in artifacts.read_jsonl(run / "metrics.jsonl")] == [1, 2, 3]
    result = qlora("--resume", "runs/full")
    assert result.code == 0 and "going on after step 2" in result.err


def test_disk_that_is_full_before_the_run_is_there_names_no_run_to_go_on_with(qlora, small, unfinished, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(unfinished.rglob("*"))
    monkeypatch.setattr("medmind_train.rundir.write_config", full)
    result = qlora(*small("--name", "begun", "--force"))
    result.refused("disk of", "is full", "start again")
    assert "--resume" not in result.err and sorted(unfinished.rglob("*")) == before


@pytest.mark.slow
def test_limit_of_the_system_itself_is_said_in_one_line(qlora, small, tmp_path: Path, command):
    import resource
    import subprocess

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        command(*small("--rank", "64", "--name", "full")),
        cwd=tmp_path,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.rstrip().splitlines()[-1].startswith("error: the disk of"), done.stderr
