"""The fused step as `medmind-train step` measures it."""

from collections.abc import Mapping, Sequence

import torch

from medmind.base import Base
from medmind_train import optimizer
from medmind_train.batches import Batch
from medmind_train.fused import build
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import Unsupported
from medmind_train.fused.step import FusedStep
from medmind_train.hardware import Dtype, Hardware
from medmind_train.qlora_config import QloraConfig
from medmind_train.step.config import PLACEMENTS, StepConfig
from medmind_train.step.stepper import CLIP, Stepper


class _Fused:
    """The fused step with its optimizer."""

    def __init__(self, step: FusedStep, placement: Placement, made: object) -> None:
        self._step = step
        self._parameters = [parameter for _, parameter in step.named_parameters()]
        self._placement = placement
        self._optimizer = made

    @property
    def trainable(self) -> Sequence[torch.Tensor]:
        """LoRA's A and B of all layers."""
        return self._parameters

    @property
    def pinned(self) -> int | None:
        """Bytes of host memory that copies go to and come from."""
        return self._step.pinned

    @property
    def flags(self) -> Mapping[str, str]:
        """Where things lie."""
        kept = self._placement.kept
        return {
            "kept": " ".join(f"{keep}:{kept.count(keep)}" for keep in Keep if keep in kept),
            "streamed": str(self._placement.streamed),
            "head": "card" if self._placement.head_on_card else "host",
            "gradient clipping": f"{CLIP:g}",
        }

    def step(self, batch: Batch) -> torch.Tensor:
        """Forward, backward, update."""
        loss = self._step.add_gradient(batch, float(batch.supervised[:, 1:].sum()))
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._optimizer.step()  # type: ignore[attr-defined]
        self._step.zero_gradients()
        return loss


def fused_stepper(base: Base, config: StepConfig, machine: Hardware, dtype: Dtype) -> Stepper:
    """Load `base` for the fused step.

    Args:
        config: rank, alpha, targets, batch, length, seed, and the budget.

    Raises:
        Unsupported: (medmind_train.fused.shape) this base or this machine; the reference path can.
        MedmindError: a budget that cannot be kept.
    """
    settings = QloraConfig(
        base=base.name,
        batch=config.batch,
        context=config.length,
        rank=config.rank,
        alpha=config.alpha,
        targets=config.targets,
        optimizer=optimizer.choose("auto", machine.device),
        vram="auto" if config.vram in PLACEMENTS else config.vram,
        seed=config.seed,
    )
    if why := build.refusal(base, settings, machine, dtype):
        raise Unsupported(why)
    if config.vram in PLACEMENTS:
        placement = build.named_placement(base, config.vram)
    else:
        placement = build.placement_of(base, settings, machine, dtype)
    _, step = build.build(base, settings, device=machine.device, dtype=dtype, placement=placement)
    groups = optimizer.groups(step.named_parameters(), weight_decay=0.0)
    made = optimizer.make(settings.optimizer, groups, lr=1e-5, weight_decay=0.0)
    return _Fused(step, placement, made)
