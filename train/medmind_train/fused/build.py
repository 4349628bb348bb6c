"""From a base and settings to a model and its fused step: whether it can serve, where things lie, then loading.

Knows the order; each part lies elsewhere.
"""

from typing import Any

import torch

from medmind.artifacts import read_json
from medmind.base import Base
from medmind_train import model
from medmind_train.fused import budget, fit, kernels, loading
from medmind_train.fused.lifetimes import OUTSIDE_TORCH
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import Shape, Unsupported
from medmind_train.fused.step import FusedStep
from medmind_train.hardware import Device, Dtype, Hardware
from medmind_train.qlora_config import QloraConfig, vram

_OLDEST = (8, 0)
"""CUDA capability that FlashAttention-2 wants: Ampere, cards from 2020 on."""


def shape_of(base: Base) -> Shape:
    """The sizes of a base directory.

    Raises:
        Unsupported: the fused step does not know its kind, or not with such sizes.
    """
    shape = Shape.of(read_json(base.path / "config.json"))
    if shape.refusal:
        raise Unsupported(shape.refusal)
    return shape


def refusal(base: Base, config: QloraConfig, machine: Hardware, dtype: Dtype) -> str | None:
    """Why the fused step cannot do this work here; None: it can."""
    try:
        shape_of(base)
    except Unsupported as error:
        return f"{base.name} is not for it: {error}"
    return fit.refusal(config, dtype) or lacking(machine) or None


def lacking(machine: Hardware) -> str:
    """What this machine lacks for the fused step; empty: nothing."""
    if machine.device != "cuda":
        return ""
    reasons = {
        f"{machine.name} is older than its kernels": (machine.capability or (0, 0)) < _OLDEST,
        "Triton is not installed": not kernels.available(),
        "this build of torch has no flash attention": not torch.backends.cuda.is_flash_attention_available(),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def placement_of(base: Base, config: QloraConfig, machine: Hardware, dtype: Dtype) -> Placement:
    """The fastest way to do the work within `--vram` and what is free of the card.

    Raises:
        MedmindError: there is none.
    """
    step = fit.work(config, shape_of(base), element=getattr(torch, dtype).itemsize, hopper=machine.hopper)
    if machine.device == "cpu":
        return budget.choose(step, vram(config) or 1 << 62)
    return fit.placement(config, step, free())


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
