"""From a base and settings to a model and its fused step: whether it can serve, where things lie, then loading.

Knows the order; each part lies elsewhere.
"""

from typing import Any

import torch

from medmind.artifacts import read_json
from medmind.base import Base
from medmind_train import model
from medmind_train.fused import budget, kernels, loading
from medmind_train.fused.lifetimes import BETWEEN, OUTSIDE_TORCH, Step
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import BLOCK, Shape, Unsupported
from medmind_train.fused.step import FusedStep
from medmind_train.hardware import Device, Dtype, Hardware
from medmind_train.plan.adapters import ranks
from medmind_train.qlora_config import QloraConfig

_OLDEST = (8, 0)
"""CUDA capability that FlashAttention-2 wants: Ampere, cards from 2020 on."""
_WIDEST_HEAD = 256
"""Columns of a head that it takes."""


def shape_of(base: Base) -> Shape:
    """The sizes of a base directory.

    Raises:
        Unsupported: the fused step does not know its kind, or not with such sizes.
    """
    shape = Shape.of(read_json(base.path / "config.json"))
    for name, (_, columns) in shape.linears.items():
        if columns % BLOCK:
            raise Unsupported(f"the rows of its {name} do not end with a block of {BLOCK}")
    if shape.head_dim % 8 or shape.head_dim > _WIDEST_HEAD:
        raise Unsupported(f"flash attention takes no heads of {shape.head_dim}")
    return shape


def refusal(base: Base, config: QloraConfig, machine: Hardware, dtype: Dtype) -> str | None:
    """Why the fused step cannot do this work here; None: it can."""
    try:
        shape_of(base)
    except Unsupported as error:
        return f"{base.name} is not for it: {error}"
    reasons = {
        "it has no LoRA dropout": config.dropout > 0,
        "it has no DoRA": config.dora,
        "it does not compute in float16": dtype == "float16",
    }
    if machine.device == "cuda":
        reasons |= {
            f"{machine.name} is older than its kernels": (machine.capability or (0, 0)) < _OLDEST,
            "Triton is not installed": not kernels.available(),
            "this build of torch has no flash attention": not torch.backends.cuda.is_flash_attention_available(),
        }
    return next((reason for reason, holds in reasons.items() if holds), None)


def placement_of(base: Base, config: QloraConfig, device: Device, dtype: Dtype, room: int | None) -> Placement:
    """The fastest way to do the work within `room` bytes of the card, None: what is free of it.

    Raises:
        MedmindError: there is none.
    """
    shape = shape_of(base)
    step = Step(
        shape,
        ranks(config, shape),
        config.batch,
        config.context,
        element=getattr(torch, dtype).itemsize,
        optimizer=config.optimizer,
    )
    if device == "cpu":
        return budget.choose(step, room or 1 << 62)
    return budget.choose(step, (free() if room is None else room - OUTSIDE_TORCH) - BETWEEN)


def named_placement(base: Base, name: str) -> Placement:
    """A placement by name, for measurements: `lean`, `stream`, or what every layer keeps."""
    layers = shape_of(base).layers
    if name in ("lean", "stream"):
        return Placement.lean(layers, stream=name == "stream")
    return Placement((Keep(name),) * layers)


def free() -> int:
    """Bytes of the card that nobody uses, and that torch holds without using them."""
    available, _ = torch.cuda.mem_get_info()
    return int(available) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def hold(room: int) -> None:
    """Let torch fail rather than take more than a card with `room` bytes in all would have for it."""
    _, whole = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(max(room - OUTSIDE_TORCH, 1) / whole, 1.0))


def build(
    base: Base, config: QloraConfig, *, device: Device, dtype: Dtype, placement: Placement
) -> tuple[Any, FusedStep]:
    """Load the base as `placement` says, put an adapter on it, and make the step.

    Raises:
        MedmindError: a base that cannot be loaded.
        Unsupported: what `refusal` could not see.
    """
    loaded = loading.load(base, device, dtype, placement)
    return adapt(loaded, base, config, dtype=dtype, placement=placement)


def adapt(loaded: Any, base: Base, config: QloraConfig, *, dtype: Dtype, placement: Placement) -> tuple[Any, FusedStep]:
    """Put an adapter on a base that `loading.load` gave for this placement, and make the step."""
    tuned = model.add_adapter(
        loaded,
        base,
        targets=config.targets,
        rank=config.rank,
        alpha=config.alpha,
        dropout=0.0,
        rslora=config.rslora,
        rank_pattern=config.rank_pattern,
        alpha_pattern=config.alpha_pattern,
        checkpointing=False,
        seed=config.seed,
    )
    step = FusedStep(
        tuned,
        placement,
        batch=config.batch,
        length=config.context,
        dtype=getattr(torch, dtype),
        stream=loaded.layer_stream,
    )
    return tuned, step
