"""Checkpoints of a training run: whole or not there at all, tensors in safetensors and the rest in JSON.

Knows how a training state is written and read back bit by bit; not when to write one.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medmind.artifacts import atomic_directory, read_json, sha256, write_json
from medmind.errors import MedmindError
from medmind_train import optimizer as optimizers
from medmind_train.hardware import Device
from medmind_train.model import load_adapter, save_adapter, write_tensors

FORMAT = "medmind-checkpoint/1"
STATE = "state.json"
KEPT = 2
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Attributes:
        step: optimizer steps done; with the seed it tells the place in the data and the learning rate.
        seconds: time spent training so far, over all starts.
        tokens: tokens that went through the model so far.
        padded: the same, with padding.
        peak_memory: bytes, over all starts.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0
    peak_memory: int = 0


def rng_state(device: Device) -> dict[str, torch.Tensor]:
    """The state of torch's random generators, which dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device == "cuda":
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def save(
    folder: Path, position: Position, *, model: Any, optimizer: Any, scaler: Any, rng: dict[str, torch.Tensor]
) -> Path:
    """Write `folder/step-N` and remove all but the newest `KEPT` checkpoints.

    Args:
        scaler: the `torch.amp.GradScaler` in use.
        rng: what `rng_state` gave when step N had ended.
    """
    final = folder / f"step-{position.step}"
    with atomic_directory(final) as partial:
        save_adapter(model, partial)
        tensors, values = optimizers.state_tensors(optimizer)
        write_tensors(partial / "optimizer.safetensors", tensors)
        write_tensors(partial / "rng.safetensors", rng)
        files = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        document = {
            "format": FORMAT,
            "position": vars(position),
            "optimizer": values,
            "scaler": scaler.state_dict(),
            "files": files,
        }
        write_json(partial / STATE, document)
    for old in _folders(folder)[KEPT:]:
        shutil.rmtree(old)
    return final


def newest(folder: Path) -> tuple[Path, list[str]] | None:
    """The newest whole checkpoint and the names of torn ones that were passed over; None when there is no whole one."""
    torn: list[str] = []
    for path in _folders(folder):
        if _whole(path):
            return path, torn
        torn.append(path.name)
    return None


def load(path: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> Position:
    """Put a checkpoint's state back into model, optimizer, scaler and random generators.

    Raises:
        MedmindError: an adapter that does not fit the model.
    """
    from safetensors.torch import load_file

    state = read_json(path / STATE)
    load_adapter(model, path)
    optimizers.load_state(optimizer, load_file(path / "optimizer.safetensors"), state["optimizer"], device)
    scaler.load_state_dict(state["scaler"])
    rng = load_file(path / "rng.safetensors")
    torch.set_rng_state(rng["cpu"])
    if device == "cuda" and "cuda" in rng:
        torch.cuda.set_rng_state(rng["cuda"])
    return Position(**state["position"])


def clear_leavings(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for path in folder.glob(".*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _whole(path: Path) -> bool:
    try:
        state = read_json(path / STATE)
        return state["format"] == FORMAT and all(
            sha256(path / name) == digest for name, digest in state["files"].items()
        )
    except (MedmindError, OSError, KeyError, AttributeError):
        return False
