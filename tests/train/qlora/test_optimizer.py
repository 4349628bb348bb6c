import copy

import pytest
import torch

from medmind_train import optimizer as optimizers
from medmind_train.fused.lifetimes import OPTIMIZER_BYTES


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size)) for size in ((16, 512), (8,))]


def step(optimizer, held: list[torch.nn.Parameter], number: int) -> None:
    torch.manual_seed(number)
    for parameter in held:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_state_put_back_gives_the_next_step_bit_by_bit(name: str):
    held = parameters()
    optimizer = optimizers.make(name, held, lr=1e-2, weight_decay=0.1)
    for number in range(3):
        step(optimizer, held, number)
    tensors, values = optimizers.state_tensors(optimizer)
    copied = [torch.nn.Parameter(parameter.detach().clone()) for parameter in held]
    again = optimizers.make(name, copied, lr=1e-2, weight_decay=0.1)
    optimizers.load_state(again, copy.deepcopy(tensors), copy.deepcopy(values), "cpu")
    for number in range(3, 6):
        step(optimizer, held, number)
        step(again, copied, number)
    assert all(torch.equal(first, second) for first, second in zip(held, copied, strict=True))
    fresh = [torch.nn.Parameter(parameter.detach().clone()) for parameter in held]
    forgetful = optimizers.make(name, fresh, lr=1e-2, weight_decay=0.1)
    step(optimizer, held, 6)
    step(forgetful, fresh, 6)
    assert not torch.equal(held[0], fresh[0])


def test_8_bit_state_is_8_bit():
    held = parameters()
    optimizer = optimizers.make("adamw8bit", held, lr=1e-2, weight_decay=0.0)
    step(optimizer, held, 0)
    tensors, _ = optimizers.state_tensors(optimizer)
    assert tensors["0.state1"].dtype == torch.uint8


def test_8_bit_state_is_there_before_the_first_step_and_changes_nothing():
    import bitsandbytes

    ours, theirs = parameters(), parameters()
    made = optimizers.make("adamw8bit", ours, lr=1e-2, weight_decay=0.1)
    tensors, _ = optimizers.state_tensors(made)
    sizes = {name: tensor.nbytes for name, tensor in tensors.items() if name.startswith("0.") and "qmap" not in name}
    assert sum(sizes.values()) == OPTIMIZER_BYTES["adamw8bit"] * 16 * 512
    plain = bitsandbytes.optim.AdamW8bit(theirs, lr=1e-2, betas=optimizers.BETAS, weight_decay=0.1)
    for number in range(3):
        step(made, ours, number)
        step(plain, theirs, number)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_auto_is_8_bit_on_a_card_only():
    assert optimizers.choose("auto", "cuda") == "adamw8bit"
    assert optimizers.choose("auto", "cpu") == "adamw"
    assert optimizers.choose("adamw8bit", "cpu") == "adamw8bit"
