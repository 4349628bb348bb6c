"""A memory that is full: the step again with fewer rows a pass, the same gradient, and said once."""

import json
from pathlib import Path

import pytest
import torch

from medmind import artifacts
from medmind_train import evaluate
from medmind_train.examples import Example
from medmind_train.memory_full import MemoryFull, is_memory_full
from medmind_train.micro_batch import MicroBatch
from medmind_train.passes import ReferencePasses

LENGTH = 40
ROWS = [[Example(str(at), tuple(range(3, 3 + size)), 1 + at, True)] for at, size in enumerate((40, 9, 30, 8, 25, 7))]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch):
    """Make the memory full with more than so many rows; gives the rows of every pass that was tried."""

    def limit(method: str, most: int) -> list[int]:
        real, seen = getattr(ReferencePasses, method), []

        def tried(self, batch, *arguments, **settings):
            seen.append(len(batch.ids))
            done = real(self, batch, *arguments, **settings)
            if len(batch.ids) > most:  # what there is of a gradient by now must not count
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return done

        monkeypatch.setattr(ReferencePasses, method, tried)
        return seen

    return limit


def passes() -> ReferencePasses:
    """Of a model with dropout."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(5)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "attention_dropout": 0.2}
    model = MistralForCausalLM(MistralConfig(**sizes, **heads, attn_implementation="eager"))
    return ReferencePasses(model.train(), device="cpu", dtype="float32")


def gradient(rows: int, length: int | None) -> tuple[object, list[torch.Tensor], MicroBatch]:
    plain = passes()
    micro = MicroBatch(plain, rows, pad=0, device="cpu", length=length)
    torch.manual_seed(7)
    done = micro.gradient(ROWS, stop=bool)
    return done, [*(one.grad for _, one in plain.named_parameters()), torch.get_rng_state()], micro


@pytest.mark.parametrize("length", [LENGTH, None], ids=["packed", "padded"])
def test_gradient_is_that_of_the_smaller_micro_batch_from_the_start(limited, length: int | None):
    loss, wanted, _ = gradient(1, length)
    tried = limited("add_gradient", 1)
    again, found, micro = gradient(6, length)
    assert tried == [6, 3] + [1] * 6 and micro.rows == 1
    assert again == loss and all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))
    told = micro.news()
    assert told and "6 rows a pass" in told and "again with 1" in told and "6 rows a step" in told
    assert micro.news() is None and micro.state() == {"rows": 1, "lean": False}
    limited("add_gradient", 0)
    with pytest.raises(MemoryFull):
        micro.gradient(ROWS, stop=bool)


def test_fewer_rows_and_less_kept_on_the_card_are_both_said(monkeypatch):
    lean = []

    def full(self, batch, *arguments, **settings):
        if len(batch.ids) > 1 or not lean:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return add(self, batch, *arguments, **settings)

    add = ReferencePasses.add_gradient
    monkeypatch.setattr(ReferencePasses, "add_gradient", full)
    monkeypatch.setattr(ReferencePasses, "leaner", lambda _: lean.append(True) or True)
    micro = gradient(2, None)[2]
    told = micro.news()
    assert told and "2 rows a pass" in told and "less kept on the card" in told
    assert micro.state() == {"rows": 1, "lean": True}


def test_evaluation_shrinks_its_own_batches(limited, capsys):
    examples, plain = [row[0] for row in ROWS], passes()
    roomy, _ = evaluate.measure(plain, examples, pad=0, room=evaluate.Room(400))
    room = evaluate.Room(400)
    tried = limited("scores", 2)
    found, _ = evaluate.measure(plain, examples, pad=0, room=room)
    assert tried[0] == 6 and sum(rows for rows in tried if rows <= 2) == 6 and room.tokens < 400
    assert (found.nll, found.error, found.tokens) == pytest.approx((roomy.nll, roomy.error, roomy.tokens), rel=1e-5)
    assert capsys.readouterr().err.count("memory was full in evaluation") == 1
    limited("scores", 0)
    with pytest.raises(MemoryFull):
        evaluate.measure(plain, examples, pad=0, room=room)


def test_run_says_it_once_and_goes_on_with_what_fitted_also_when_resumed(qlora, small, limited, stopped_after):
    effective = ("--batch", "8", "--accumulate", "1", "--dropout", "0.1", "--max-steps", "2", "--context", "64")
    quick = (*effective, "--eval-rows", "2", "--packing")
    wanted = qlora(*small(*quick, "--batch", "2", "--accumulate", "4", "--name", "small"))
    tried = limited("add_gradient", 2)
    run = stopped_after(1, *small(*quick, "--name", "full"))
    assert tried[:3] == [8, 4, 2] and max(tried[3:], default=2) == 2
    tried.clear()
    result = qlora("--resume", str(run), "--json")
    assert result.code == wanted.code == 0 and tried and max(tried) == 2 and "memory" not in result.err
    losses = [
        [(line["loss"], line["grad_norm"]) for line in artifacts.read_jsonl(one / "metrics.jsonl")]
        for one in (run, run.with_name("small"))
    ]
    assert len(losses[0]) == 2 and losses[0] == losses[1]
    assert json.loads(result.out)["results"]["micro_batch"] == 2


def test_memory_full_with_one_row_is_one_line_and_the_last_step_is_kept(qlora, small, limited, tmp_path: Path):
    limited("add_gradient", 0)
    qlora(*small("--name", "full")).refused("memory of", "is full", "--resume runs/full", "--context")
    assert (tmp_path / "runs" / "full" / "checkpoints" / "step-0" / "state.json").exists()
    limited("scores", 0)
    qlora(*small("--name", "never")).refused("is full", "--batch")
    assert not (tmp_path / "runs" / "never").exists()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), KeyboardInterrupt()])
def test_what_ends_the_loading_names_no_run_but_its_own(qlora, small, unfinished: Path, monkeypatch, error):
    def ends(*_, **__):
        raise error

    monkeypatch.setattr("medmind_train.model.load_base", ends)
    interrupted = isinstance(error, KeyboardInterrupt)
    before = sorted(unfinished.rglob("*"))
    for arguments, resumable in ((small("--name", "begun", "--force"), False), (("--resume", "runs/begun"), True)):
        result = qlora(*arguments)
        assert result.code == (130 if interrupted else 1), result.err
        assert ("--resume runs/begun" in result.err) == resumable, result.err
        assert interrupted or "is full" in result.err.rstrip().splitlines()[-1]
        assert sorted(unfinished.rglob("*")) == before


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
