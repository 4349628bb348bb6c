"""What a run took, and what a full fine-tune of the same base would take. Knows sizes; measures nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmind.base import check_config
from medmind_train.fused import fit
from medmind_train.fused.lifetimes import Step
from medmind_train.plan import base_config, reference
from medmind_train.qlora_config import QloraConfig

if TYPE_CHECKING:
    from medmind_train.energy import Taken

CARD = 80 << 30
"""Bytes of a large card, to say how many of them a full fine-tune wants."""


def compare(
    config: QloraConfig, name: str, base: Path, results: Mapping[str, Any], taken: "Taken | None"
) -> dict[str, Any]:
    """Energy and price of a run, and estimates for full fine-tuning.

    Memory is `plan`'s estimate for weights, gradients and AdamW's moments in the compute type. Computing is by
    arithmetic: a frozen weight takes 4 FLOP a token (forward, and the gradient of its input), a trained one 6, and 2
    more each where activations are computed again, as is taken for both.

    Args:
        results: of the run: `seconds`, `parameters`, `memory`, `device`.
        taken: the energy that was measured; None: not measured.
    """
    hours = sum(results["seconds"].values()) / 3600
    price = config.price_per_hour
    shape = base_config.of(name, check_config(base), local=True).shape
    element = 4 if config.dtype == "float32" else 2
    step = fit.work(config, shape, element=element, hopper=False)
    recipe = reference.Recipe(checkpointing=bool(config.gradient_checkpointing), accumulates=config.accumulate > 1)
    on_card = results["device"]["device"] == "cuda"
    whole, trained = shape.parameters, results["parameters"]["trained"]
    return {
        "energy": None if taken is None else {**vars(taken), "watts": taken.watts},
        "price": None if price is None else {"per_hour": price, "hours": hours, "total": price * hours},
        # The memory of a process on a CPU has Python and its libraries in it, and stands beside no estimate of tensors.
        "memory": {
            "peak": results["memory"]["peak"] if on_card else reference.lora(step, recipe).peak,
            "estimate": not on_card,
        },
        "full_fine_tuning": {
            "estimate": True,
            "memory": reference.full(Step(shape, {}, config.batch, config.context, element=element)).peak,
            "weights": "fp32" if element == 4 else "16 bits",
            "computing": 8 * whole / (6 * whole + 8 * trained),
        },
    }
