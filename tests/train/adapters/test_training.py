"""DoRA on a 4-bit base and LoRA+ in training: gradients, learning rates, saved and resumed state."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medmind import artifacts
from medmind.base import Base
from medmind_train import checkpoint
from medmind_train import model as models
from medmind_train import optimizer as optimizers

IDS = torch.randint(10, 3800, (2, 24), generator=torch.Generator().manual_seed(5))


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model(IDS, labels=IDS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def step(model: Any, optimizer: Any) -> None:
    model.train()
    model(IDS, labels=IDS).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def made(name: str, model: Any, *, ratio: float = 1.0, decay: float = 0.0, lr: float = 1e-3) -> Any:
    groups = optimizers.groups(model.named_parameters(), weight_decay=decay, lora_plus=ratio)
    return optimizers.make(name, groups, lr=lr, weight_decay=decay)


def test_a_fresh_dora_adapter_changes_nothing_and_has_a_magnitude_for_every_row(
    adapted: Callable[..., Any], base: Base
):
    plain = models.load_base(base, "cpu", "float32")
    tuned = adapted(dora=True, targets="all-linear")
    with torch.no_grad():
        assert torch.equal(tuned.eval()(IDS).logits, plain.eval()(IDS).logits)
    shapes = [p.shape for n, p in tuned.named_parameters() if "magnitude" in n and p.requires_grad]
    assert len(shapes) == 35
    assert all(len(shape) == 1 for shape in shapes)


def test_dora_has_the_same_gradient_with_recomputed_activations(adapted: Callable[..., Any]):
    found = []
    for checkpointing in (False, True):
        model = adapted(dora=True, targets="all-linear", checkpointing=checkpointing)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
        model.train()
        assert model.get_base_model().model.gradient_checkpointing is checkpointing
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, found[1][name]), name


def test_a_saved_dora_adapter_gives_the_same_logits_when_loaded(
    adapted: Callable[..., Any], base: Base, tmp_path: Path
):
    model = adapted(dora=True, rslora=True, rank_pattern={"q_proj": 2})
    optimizer = made("adamw", model, lr=1e-2)
    for _ in range(3):
        step(model, optimizer)
    models.save_adapter(model, tmp_path)
    with torch.no_grad():
        expected = model.eval()(IDS).logits
        assert torch.equal(models.load_tuned(base, tmp_path, "cpu", "float32")(IDS).logits, expected)


@pytest.mark.parametrize("dora", [False, True])
def test_lora_plus_groups_are_pefts(adapted: Callable[..., Any], dora: bool):
    """Each parameter's learning rate is the one of PEFT's create_loraplus_optimizer."""
    from peft.optimizers import create_loraplus_optimizer

    model = adapted(dora=dora)
    reference = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8.0)

    def rates(optimizer: Any) -> dict[int, float]:
        return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}

    own = rates(made("adamw", model, ratio=8.0))
    assert own == pytest.approx(rates(reference))
    assert sorted(set(own.values())) == pytest.approx([1e-3, 8e-3])
    assert own.keys() == {id(p) for p in models.trainable(model)}


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_the_schedule_keeps_the_ratio_of_lora_plus(name: str, adapted: Callable[..., Any]):
    """Adam's first step is the learning rate in size, whatever the gradient: A moves by lr, B by ratio · lr."""
    model = adapted()
    optimizer = made(name, model, ratio=16.0, lr=1.0)
    optimizers.set_learning_rate(optimizer, 1e-4)
    with torch.no_grad():  # A has no gradient while B is 0
        for parameter in models.trainable(model):
            parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(2))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    step(model, optimizer)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            moved = float((parameter.detach() - before[key]).abs().median())
            assert moved == pytest.approx(16e-4 if ".lora_B." in key else 1e-4, rel=0.02), key


def test_weight_decay_leaves_magnitudes_alone(adapted: Callable[..., Any]):
    model = adapted(dora=True)
    optimizer = made("adamw", model, decay=0.5, lr=0.1)
    for parameter in models.trainable(model):
        parameter.grad = torch.zeros_like(parameter)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    optimizer.step()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.abs().max() > 0:
            assert torch.equal(parameter, before[name]) is ("magnitude" in name), name


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_a_checkpoint_goes_on_bit_by_bit_with_dora_and_lora_plus(
    name: str, adapted: Callable[..., Any], tmp_path: Path
):
    settings = {"dora": True, "rank": 16, "targets": "q_proj,down_proj", "dropout": 0.1}
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    first = adapted(**settings)
    optimizer = made(name, first, ratio=4.0, decay=0.01)
    for _ in range(2):
        step(first, optimizer)
    rng = checkpoint.rng_state("cpu")
    path = checkpoint.save(
        tmp_path, checkpoint.Position(step=2), model=first, optimizer=optimizer, scaler=scaler, rng=rng
    )
    second = adapted(**settings, seed=99)
    again = made(name, second, ratio=4.0, decay=0.01)
    checkpoint.load(path, second, again, scaler, "cpu")
    halfway = copy.deepcopy(checkpoint.rng_state("cpu"))
    results = []
    for model, held in ((first, optimizer), (second, again)):
        torch.set_rng_state(halfway["cpu"])
        for number in range(2, 4):
            optimizers.set_learning_rate(held, 1e-3 / number)
            step(model, held)
        results.append([p.detach().clone() for p in models.trainable(model)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_command_trains_with_every_setting_and_records_them(qlora: Callable[..., Any], tmp_path: Path):
    rows = [
        {"question": f"What is number {n}?", "answer": f"It is {n} and no more.", "focus": f"{n}"} for n in range(24)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    result = qlora(
        *("--data", "rows.jsonl", "--heldout-share", "0.2", "--answer-rows", "0", "--max-steps", "2"),
        *("--eval-rows", "2", "--context", "64", "--batch", "2", "--rank", "4"),
        *("--dora", "--rslora", "--lora-plus", "8", "--rank-pattern", "q_proj=2", "--alpha-pattern", "v_proj=4"),
        *("--targets", "attention", "--gradient-checkpointing", "--name", "all"),
    )
    assert result.code == 0, result.err
    manifest = artifacts.read_run(tmp_path / "runs" / "all")
    recorded = {key: manifest["config"][key] for key in ("dora", "rslora", "lora_plus", "rank_pattern", "targets")}
    assert recorded == {
        "dora": True,
        "rslora": True,
        "lora_plus": 8.0,
        "rank_pattern": {"q_proj": 2},
        "targets": "attention",
    }
