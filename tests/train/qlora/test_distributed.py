"""One effective batch over several processes: the same gradient as in one."""

import multiprocessing
import random
import sys
from pathlib import Path

import pytest
import torch

from medmind_train import distributed
from medmind_train.examples import Example
from medmind_train.gradient import backward
from medmind_train.passes import ReferencePasses


def tiny():
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(5)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            initializer_range=0.3,
        )
    )


def examples() -> list[Example]:
    """Of very unequal answers, so that a mean of means is another gradient."""
    source = random.Random(2)
    return [
        Example(str(at), tuple(source.randrange(3, 50) for _ in range(length)), answer, True)
        for at, (length, answer) in enumerate([(40, 2), (9, 7), (30, 3), (8, 6), (25, 1)])
    ]


def gradient(rows) -> tuple[float, torch.Tensor]:
    model = tiny()
    loss, _ = backward(ReferencePasses(model, device="cpu", dtype="float32"), rows, batch=1, pad=0)
    return loss, torch.cat([one.grad.flatten() for one in model.parameters()])


def assert_in_place(rank: int) -> None:
    """The fused step hands out views of its gradients."""
    for size in (7, 1000):
        parameter = torch.nn.Parameter(torch.zeros(size))
        parameter.grad = torch.full((size,), 1.0 + rank)
        view = parameter.grad[1:3]
        distributed.sum_gradients([parameter, torch.nn.Parameter(torch.zeros(2))])
        assert view.tolist() == [3.0, 3.0] and parameter.grad[0] == 3


def one_of_two(rank: int, folder: str) -> None:
    """What each process does; at module level, as `spawn` needs it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=(Path(folder) / "meet").as_uri(), rank=rank, world_size=2)
    try:
        distributed._MESSAGE = 300  # so that some gradients go together and the larger ones alone
        loss, summed = gradient([[one] for one in examples()])
        assert_in_place(rank)
        torch.save({"loss": loss, "gradient": summed}, Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.slow  # test_processes has two processes of the whole command by default
def test_two_processes_give_the_gradient_of_one(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "__spec__", None, raising=False)
    loss, whole = gradient([[one] for one in examples()])
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=one_of_two, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert abs(found["loss"] - loss) / loss < 1e-6
        assert (found["gradient"] - whole).norm() / whole.norm() < 1e-5
    # What DistributedDataParallel would do, the mean of each process's mean, is told apart on these examples.
    means = sum(gradient([[one] for one in examples()[rank::2]])[1] for rank in range(2)) / 2
    assert (means - whole).norm() / whole.norm() > 1e-2


def test_one_process_is_left_alone():
    rows = [[1], [2], [3]]
    assert distributed.world() == (0, 1)
    assert distributed.share(rows) is rows and distributed.totals(5, 2) == (5, 2)
