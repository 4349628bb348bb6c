"""The LoRA parameters of a PEFT model in flat buffers: one copy to optimize, one to hold their gradients.

PEFT's own parameters become views of them, so that saving and loading an adapter works as before. Knows PEFT's LoRA
layers; no arithmetic.
"""

from typing import Any

import torch

from medmind_train.fused.kernels import Nf4
from medmind_train.fused.projection import Adapter, Linear, Projection
from medmind_train.fused.shape import GROUPS, Shape, Unsupported

_ADAPTER = "default"


class Adapters:
    """All adapters of a model.

    Attributes:
        a, b: LoRA's A of all layers and LoRA's B, flat fp32 parameters whose `.grad` is always there.
        layers: the projections of each decoder layer by their group.
    """

    def __init__(self, model: Any, shape: Shape) -> None:
        decoder = model.get_base_model().get_decoder()
        device = decoder.norm.weight.device
        modules = [[_modules(layer, group) for group in GROUPS] for layer in decoder.layers]
        flat = [module for layer in modules for group in layer for module in group]
        # PEFT's own copies go before the gradients come: at a large rank all three at once would be the run's peak.
        self.a, self.b = (_moved(flat, which, device) for which in ("A", "B"))
        if device.type == "cuda":
            torch.cuda.empty_cache()  # no gradient would fit into the pieces that they leave
        takes_a, takes_b = _Cutter(self.a), _Cutter(self.b)
        self.layers = [
            {
                name: Projection([_linear(module, takes_a, takes_b) for module in group])
                for name, group in zip(GROUPS, layer, strict=True)
            }
            for layer in modules
        ]
        for layer in self.layers:
            for group, names in GROUPS.items():
                for member, name in zip(layer[group].members, names, strict=True):
                    if (member.weight.rows, member.weight.columns) != shape.linears[name]:
                        raise Unsupported(f"its {name} is no {shape.linears[name]}")

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """What an optimizer updates."""
        return [("layers.lora_A.flat", self.a), ("layers.lora_B.flat", self.b)]

    def zero_gradients(self) -> None:
        """Set all gradients to 0, where they lie."""
        for _, parameter in self.named_parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()


class _Cutter:
    """Hands out views of a flat parameter and of its gradient, one behind the other."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        self.parameter = parameter
        parameter.grad = torch.zeros_like(parameter)
        self.at = 0

    def take(self, own: torch.nn.Parameter) -> tuple[torch.Tensor, torch.Tensor]:
        """The next place, which is `own`'s."""
        places = slice(self.at, self.at + own.numel())
        self.at = places.stop
        assert self.parameter.grad is not None
        own.grad = self.parameter.grad[places].view(own.shape)
        return own.detach(), own.grad


def _moved(modules: list[Any], which: str, device: torch.device) -> torch.nn.Parameter:
    """A flat parameter that the adapters' own are views of from now on."""
    own = [_weight(module, which) for module in modules if _adapted(module)]
    flat = torch.zeros(sum(one.numel() for one in own), device=device)
    at = 0
    for one in own:
        view = flat[at : at + one.numel()].view(one.shape)
        view.copy_(one.detach())
        one.data, one.grad = view, None
        at += one.numel()
    return torch.nn.Parameter(flat)


def _modules(layer: Any, group: str) -> list[Any]:
    parent = layer.mlp if group in ("gate_up", "down") else layer.self_attn
    return [getattr(parent, name) for name in GROUPS[group]]


def _adapted(module: Any) -> bool:
    return _ADAPTER in getattr(module, "lora_A", {})


def _weight(module: Any, which: str) -> torch.nn.Parameter:
    parameter: torch.nn.Parameter = getattr(module, f"lora_{which}")[_ADAPTER].weight
    return parameter


def _linear(module: Any, takes_a: _Cutter, takes_b: _Cutter) -> Linear:
    base = getattr(module, "base_layer", module)
    adapter = None
    if _adapted(module):
        a, grad_a = takes_a.take(_weight(module, "A"))
        b, grad_b = takes_b.take(_weight(module, "B"))
        adapter = Adapter(a, b, grad_a, grad_b, float(module.scaling[_ADAPTER]))
    return Linear(Nf4.of(base.weight), base.bias, adapter)
