"""A run's settings as the fused step's work: whether it does that, and how on a card with so much room.

The one place that says so, for a plan and for a run. Knows settings and sizes; no torch, no machine.
"""

from medmind_train import lora
from medmind_train.fused import budget
from medmind_train.fused.lifetimes import BETWEEN, OPTIMIZER_BYTES, OUTSIDE_TORCH, WORKSPACE, WORKSPACE_HOPPER, Step
from medmind_train.fused.placement import Placement
from medmind_train.fused.shape import Shape
from medmind_train.qlora_config import QloraConfig, vram


def refusal(config: QloraConfig, dtype: str) -> str:
    """Why the fused step does not do what the settings ask for, whatever base and machine; empty: it does.

    Args:
        dtype: the compute type, or `auto`.
    """
    reasons = {
        "it has no LoRA dropout": config.dropout > 0,
        "it has no DoRA": config.dora,
        "it has every layer whole (--shard)": config.shard,
        "it does not compute in float16": dtype == "float16",
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def work(config: QloraConfig, shape: Shape, *, element: int, hopper: bool) -> Step:
    """What one pass of a run has to do.

    Args:
        element: bytes of the compute type.
        hopper: the card is a Hopper.

    Raises:
        MedmindError: a target that such a base does not have.
    """
    return Step(
        shape,
        lora.ranks(config, shape),
        config.batch,
        config.context,
        element=element,
        optimizer=config.optimizer if config.optimizer in OPTIMIZER_BYTES else "adamw8bit",
        workspace=WORKSPACE_HOPPER if hopper else WORKSPACE,
    )


def limit(config: QloraConfig, free: int) -> int:
    """Bytes that torch may take of a card.

    Args:
        free: that nobody uses, CUDA's context being there already; `--vram`, which counts that in, may lower it.
    """
    asked = vram(config)
    return free if asked is None else min(free, max(1, asked - OUTSIDE_TORCH))


def placement(config: QloraConfig, step: Step, free: int) -> Placement:
    """The fastest placement on a card with so much room.

    Args:
        free: as `limit` takes it.

    Raises:
        MedmindError: nothing fits; says the least that is possible, and what to change.
    """
    return budget.choose(step, max(0, limit(config, free) - BETWEEN))
