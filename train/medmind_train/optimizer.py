"""AdamW, torch's or bitsandbytes' with 8-bit state, and its state as plain tensors. Knows no model and no schedule.

Knows which of an adapter's parameters learn at another rate (LoRA+) and which are never decayed.
"""

from collections.abc import Iterable
from typing import Any

import torch

from medmind_train.hardware import Device

BETAS = (0.9, 0.999)


def choose(name: str, device: Device) -> str:
    """What `auto` means: 8-bit state saves memory on a card; on a CPU torch's fused AdamW is several times faster."""
    if name != "auto":
        return name
    return "adamw8bit" if device == "cuda" else "adamw"


def groups(
    named: Iterable[tuple[str, torch.nn.Parameter]], *, weight_decay: float, lora_plus: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters in groups for `make`: LoRA's A, its B, and DoRA's magnitudes.

    As in PEFT's `create_loraplus_optimizer` (LoRA+, arXiv:2402.12354), B and the magnitudes learn at `lora_plus` times
    A's rate. Magnitudes are never decayed, which would draw the rows of the base itself towards 0.

    Args:
        named: a model's parameters by name; frozen ones are passed over.
    """
    chosen: list[dict[str, Any]] = [
        {"params": [], "weight_decay": weight_decay, "ratio": 1.0},
        {"params": [], "weight_decay": weight_decay, "ratio": lora_plus},
        {"params": [], "weight_decay": 0.0, "ratio": lora_plus},
    ]
    for name, parameter in named:
        if parameter.requires_grad:
            is_b = ".lora_B." in name and lora_plus != 1.0  # at one rate, A and B stay in the model's order
            chosen[2 if parameter.ndim == 1 else int(is_b)]["params"].append(parameter)
    return [group for group in chosen if group["params"]]


def make(
    name: str, parameters: Iterable[torch.nn.Parameter] | list[dict[str, Any]], *, lr: float, weight_decay: float
) -> Any:
    """`adamw` or `adamw8bit` over `parameters`, or over what `groups` made of them.

    The 8-bit state exists from now on: made in the first step, it would come after the graphs of the fused step were
    captured, when torch no longer counts what they hold, and be missing in every peak that torch tells.
    """
    optimizer: Any
    if name == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)
    else:
        import bitsandbytes

        optimizer = bitsandbytes.optim.AdamW8bit(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay)
        for at, group in enumerate(optimizer.param_groups):
            for place, parameter in enumerate(group["params"]):
                optimizer.init_state(group, parameter, at, place)
    set_learning_rate(optimizer, lr)
    return optimizer


def set_learning_rate(optimizer: Any, lr: float) -> None:
    """Use `lr` from the next step on, times the ratio of each group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("ratio", 1.0)


def state_tensors(optimizer: Any) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """The optimizer's state as named tensors (`<parameter number>.<name>`) and the plain values beside them."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                # clone: bitsandbytes shares one quantization map between all parameters
                tensors[f"{number}.{name}"] = value.detach().cpu().clone().contiguous()
            else:
                values.setdefault(str(number), {})[name] = value
    return tensors, values


def load_state(
    optimizer: Any, tensors: dict[str, torch.Tensor], values: dict[str, dict[str, Any]], device: Device
) -> None:
    """Put back what `state_tensors` gave; torch keeps a fused optimizer's step count on the parameter's device."""
    parameters = list(_parameters(optimizer))
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        optimizer.state[parameters[int(number)]][name] = tensor.to(device)
    for number, plain in values.items():
        optimizer.state[parameters[int(number)]].update(plain)


def _parameters(optimizer: Any) -> Iterable[torch.nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
