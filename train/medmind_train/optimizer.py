"""AdamW, torch's or bitsandbytes' with 8-bit state, and its state as plain tensors. Knows no model and no schedule."""

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


def make(name: str, parameters: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float) -> Any:
    """`adamw` or `adamw8bit` over `parameters`."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay)


def set_learning_rate(optimizer: Any, lr: float) -> None:
    """Use `lr` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr


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
