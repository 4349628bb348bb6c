"""A memory that is full: the step again with fewer rows a pass, the same gradient, and said once."""

from pathlib import Path

import pytest
import torch

from medmind import artifacts
from medmind_train.memory_full import is_memory_full
from medmind_train.passes import ReferencePasses

EFFECTIVE = (
    "--batch",
    "8",
    "--accumulate",
    "1",
    "--dropout",
    "0.1",
    "--max-steps",
    "2",
    "--checkpoint-every",
    "1",
    "--context",
    "64",
)


def losses(run: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in artifacts.read_jsonl(run / "metrics.jsonl")]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch):
    """Make the memory full with more than so many rows; gives the rows of every pass that was tried."""

    def limit(method: str, most: int) -> list[int]:
        real, seen = getattr(ReferencePasses, method), []

        def tried(self, batch, *arguments, **settings):
            seen.append(len(batch.ids))
            if len(batch.ids) > most:
                real(self, batch, *arguments, **settings)  # what is there of a gradient must not count
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return real(self, batch, *arguments, **settings)

        monkeypatch.setattr(ReferencePasses, method, tried)
        return seen

    return limit


@pytest.mark.parametrize("packing", ["--packing", "--no-packing"])
def test_step_is_repeated_with_fewer_rows_and_the_losses_are_theirs(qlora, small, limited, tmp_path, packing):
    small_from_the_start = ("--batch", "2", "--accumulate", "4", packing, "--name", "small")
    assert qlora(*small(*EFFECTIVE, *small_from_the_start)).code == 0
    tried = limited("add_gradient", 2)
    result = qlora(*small(*EFFECTIVE, packing, "--name", "full"))
    assert result.code == 0, result.err
    assert losses(tmp_path / "runs" / "full") == losses(tmp_path / "runs" / "small")
    assert max(tried) == tried[0] > 2 and all(rows <= 2 for rows in tried[2:])
    (told,) = [line for line in result.err.splitlines() if "memory was full" in line]
    assert told.startswith("step 1: ") and "8 rows a pass" in told and "with 2" in told
    assert artifacts.read_run(tmp_path / "runs" / "full")["results"]["micro_batch"] == 2


def test_resumed_run_begins_with_the_rows_that_fitted(qlora, small, limited, stopped_after):
    tried = limited("add_gradient", 2)
    run = stopped_after(1, *small(*EFFECTIVE, "--name", "full"))
    tried.clear()
    result = qlora("--resume", str(run))
    assert result.code == 0 and tried and max(tried) == 2 and "memory" not in result.err


def test_memory_full_with_one_row_is_one_line_and_the_last_step_is_kept(qlora, small, limited, monkeypatch, tmp_path):
    with monkeypatch.context():
        limited("add_gradient", 0)
        result = qlora(*small(*EFFECTIVE, "--name", "full", "--checkpoint-every", "0"))
    result.refused("memory of", "is full", "--resume runs/full", "--context")
    assert (tmp_path / "runs" / "full" / "checkpoints" / "step-0").is_dir()


def test_evaluation_shrinks_its_own_batches(qlora, small, limited, tmp_path: Path):
    assert qlora(*small(*EFFECTIVE, "--name", "roomy")).code == 0
    tried = limited("scores", 1)
    result = qlora(*small(*EFFECTIVE, "--name", "full"))
    assert result.code == 0, result.err
    assert result.err.count("memory was full in evaluation") == 1 and "rows a pass" not in result.err
    assert tried[0] > 1 and tried[-1] == 1
    roomy, full = (artifacts.read_run(tmp_path / "runs" / name)["results"]["perplexity"] for name in ("roomy", "full"))
    assert full["after"]["nll"] == pytest.approx(roomy["after"]["nll"], rel=1e-5)
    limited("scores", 0)
    qlora(*small(*EFFECTIVE, "--name", "never")).refused("is full", "--batch")
    assert not (tmp_path / "runs" / "never").exists()


def test_memory_that_is_full_is_told_from_other_faults():
    assert is_memory_full(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_memory_full(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert is_memory_full(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"))
    assert not is_memory_full(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except torch.OutOfMemoryError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904
    except RuntimeError as error:
        assert is_memory_full(error)
