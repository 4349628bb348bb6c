"""Checkpoints of a training run: whole or not there at all, tensors in safetensors and the rest in JSON.

Knows how a training state is written and read back bit by bit; not when to write one.
"""

import hashlib
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medmind.artifacts import atomic_directory, read_json, sha256, write_json
from medmind.errors import MedmindError
from medmind_train import distributed, foreign
from medmind_train import optimizer as optimizers
from medmind_train.hardware import Device
from medmind_train.model import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_adapter, save_adapter, write_tensors

FORMAT = "medmind-checkpoint/1"
STATE = "state.json"
KEPT = 2
_NAME = re.compile(r"step-(\d+)")
_PARTIAL = re.compile(r"\.step-\d+\.\d+(\.old)?\.partial")
_OPTIMIZER = "optimizer.safetensors"
_RNG = "rng.safetensors"
_FILES = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, _OPTIMIZER, _RNG, STATE)


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
    """The state of this process's random generators, which dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device == "cuda":
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, torch.Tensor], device: Device) -> None:
    """Put back what `rng_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def rng_states(own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `rng_state` gave in every process: the first one's under its names, the others' as `cpu.1` and so on."""
    states = distributed.gathered(dict(own))
    return {_of(rank, name): state for rank, one in enumerate(states) for name, state in one.items()}


def digest(values: Iterable[torch.Tensor]) -> str:
    """Of tensors, in their order, bit by bit."""
    hasher = hashlib.sha256()
    for value in values:
        hasher.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def part_rng(seed: int) -> None:
    """Let this process's dropout draw otherwise than that of the other processes."""
    if rank := distributed.world()[0]:
        torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{rank}".encode()).digest()[:7]))


def _of(rank: int, name: str) -> str:
    return f"{name}.{rank}" if rank else name


def _recall_rng(states: Mapping[str, torch.Tensor], step: int, device: Device) -> None:
    """Take up this process's own state; where there were fewer processes, begin another one."""
    rank = distributed.world()[0]
    own = {name: states[_of(rank, name)] for name in ("cpu", "cuda") if _of(rank, name) in states}
    if own:
        set_rng_state(own, device)
    else:
        part_rng(step)


def save(
    folder: Path,
    position: Position,
    *,
    model: Any,
    optimizer: Any,
    scaler: Any,
    rng: dict[str, torch.Tensor],
    loop: Mapping[str, Any] | None = None,
    needs: Collection[int] = (),
) -> Path:
    """Write `folder/step-N` and remove older ones: all but the newest `KEPT` and those that these need.

    Args:
        scaler: the `torch.amp.GradScaler` in use.
        rng: what `rng_state` gave when step N had ended, or `rng_states` made of that.
        loop: what else the training loop wants back, as JSON can hold it.
        needs: steps whose checkpoints this one is worth nothing without.
    """
    final = at(folder, position.step)
    with atomic_directory(final) as partial:
        save_adapter(model, partial)
        tensors, values = optimizers.state_tensors(optimizer)
        write_tensors(partial / _OPTIMIZER, tensors)
        write_tensors(partial / _RNG, rng)
        files = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        document = {
            "format": FORMAT,
            "position": vars(position),
            "optimizer": values,
            "scaler": scaler.state_dict(),
            "loop": dict(loop or {}),
            "needs": sorted(needs),
            "files": files,
        }
        write_json(partial / STATE, document)
    _prune(folder)
    return final


def at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step}"


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, with those it needs, and the names of torn ones that were passed over."""
    torn: list[str] = []
    for path in _folders(folder):
        if _whole(path) and all(_whole(at(folder, step)) for step in _needs(path)):
            return path, torn
        if not _whole(path):
            torn.append(path.name)
    return None, torn


def refuse_foreign(folder: Path, others: Collection[str] = ()) -> None:
    """Raise for anything in the folder of checkpoints that medmind did not put there; hidden files are nobody's.

    Args:
        others: names of files that belong there besides checkpoints.

    Raises:
        MedmindError: names it, and whose it seems to be.
    """
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in others or (_NAME.fullmatch(path.name) and _is_ours(path)):
            continue
        what = foreign.kind(path)
        raise MedmindError(
            f"{folder} holds {path.name}{f', {what},' if what else ''} which is no checkpoint of medmind's",
            "move it elsewhere: medmind deletes old checkpoints here, and nothing else",
        )


def loop_state(path: Path) -> dict[str, Any]:
    """What `save` was given as `loop`."""
    return dict(read_json(path / STATE).get("loop", {}))


def load(path: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> Position:
    """Put a checkpoint's state back into model, optimizer, scaler and random generators.

    Raises:
        MedmindError: an adapter that does not fit the model.
    """
    from safetensors.torch import load_file

    state = read_json(path / STATE)
    load_adapter(model, path)
    optimizers.load_state(optimizer, load_file(path / _OPTIMIZER), state["optimizer"], device)
    scaler.load_state_dict(state["scaler"])
    _recall_rng(load_file(path / _RNG), state["position"]["step"], device)
    return Position(**state["position"])


def clear_leavings(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for path in folder.iterdir():
        if _PARTIAL.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _prune(folder: Path) -> None:
    kept = _folders(folder)[:KEPT]
    kept += [at(folder, step) for path in kept for step in _needs(path)]
    for old in _folders(folder):
        if old not in kept and _is_ours(old):
            shutil.rmtree(old)


def _needs(path: Path) -> list[int]:
    try:
        return [int(step) for step in read_json(path / STATE).get("needs", [])]
    except (MedmindError, OSError):
        return []


def _folders(folder: Path) -> list[Path]:
    """The checkpoints, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _is_ours(path: Path) -> bool:
    """Whether all that a folder holds are files as medmind writes them, torn or not, and some are no one else's."""
    if not path.is_dir() or any(one.name not in _FILES for one in path.iterdir()):
        return False
    try:
        return read_json(path / STATE).get("format") == FORMAT
    except (MedmindError, OSError):  # the adapter alone has the names that PEFT gives its own
        return any((path / name).exists() for name in (_OPTIMIZER, _RNG, STATE))


def _whole(path: Path) -> bool:
    try:
        state = read_json(path / STATE)
        return state["format"] == FORMAT and all(
            sha256(path / name) == digest for name, digest in state["files"].items()
        )
    except (MedmindError, OSError, KeyError, AttributeError):
        return False
