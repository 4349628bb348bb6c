"""What moves the weights of a base model: AdamW alone, or Muon for the layers' matrices. Knows no data, no schedule."""

from pathlib import Path
from typing import Any, cast

import torch

from medmind_train.hardware import Device
from medmind_train.optimizer import load_state, state_tensors
from medmind_train.pretrain.config import PretrainConfig


class Optimizers:
    """One or two optimizers that step together.

    Muon (Jordan et al. 2024; torch.optim.Muon) orthogonalises the update of a matrix; embeddings, head and norms get
    AdamW. Its rate is scaled so that an update has AdamW's size (Liu et al. 2025, arXiv:2502.16982).
    """

    def __init__(self, model: Any, config: PretrainConfig, device: torch.device) -> None:
        layers = {id(p) for p in model.model.layers.parameters() if p.ndim == 2}
        muon = config.optimizer == "muon"
        matrices = [p for p in model.parameters() if p.ndim >= 2 and not (muon and id(p) in layers)]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        self._each: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
                lr=config.lr,
                betas=(0.9, config.beta2),
                fused=device.type == "cuda",
            )
        ]
        self._peaks = [config.lr]
        if muon:
            self._each.append(
                torch.optim.Muon(
                    [p for p in model.parameters() if id(p) in layers],
                    lr=config.muon_lr,
                    weight_decay=config.weight_decay,
                    momentum=config.muon_momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
            self._peaks.append(config.muon_lr)

    def step(self, factor: float) -> None:
        """Take one step at `factor` times the peak rates, and forget the gradients."""
        for one, peak in zip(self._each, self._peaks, strict=True):
            for group in one.param_groups:
                group["lr"] = peak * factor
            one.step()
            one.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        """Write the state of each into `folder`."""
        from safetensors.torch import save_file

        for number, one in enumerate(self._each):
            save_file(state_tensors(one)[0], folder / f"optimizer-{number}.safetensors")

    def load(self, folder: Path, device: torch.device) -> None:
        """Put back what `save` wrote."""
        from safetensors.torch import load_file

        for number, one in enumerate(self._each):
            tensors = load_file(folder / f"optimizer-{number}.safetensors")
            load_state(one, tensors, {}, cast(Device, device.type))
