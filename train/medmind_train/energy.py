"""Energy that the card takes while a block runs, as its own counter has it. Knows NVML; estimates nothing.

NVML is called as it is: its library comes with NVIDIA's driver, and a Python package for it is not needed.
"""

import ctypes
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from medmind.artifacts import read_jsonl
from medmind.errors import MedmindError
from medmind_train import distributed
from medmind_train.hardware import Device

ENERGY = "energy.jsonl"
"""In a run directory: joules and seconds since the line before or, for the first of a start, since training began.

Every further process of a run, which has a card of its own, writes `energy-RANK.jsonl`.
"""
_EVERY = 30.0
"""Seconds between two lines: a kill loses no more than that."""


@dataclass(frozen=True)
class Taken:
    """What was counted: joules of all cards, in so many seconds of the first one's counting."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Of all cards together, on average."""
        return self.joules / max(self.seconds, 1e-9)


def card_counter() -> Callable[[], float] | None:
    """What reads joules since the driver was loaded (cards from Volta on); None where there is no such thing."""
    import torch

    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}".encode()
        handle = ctypes.c_void_p()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
            return None
    except (OSError, AttributeError, RuntimeError):
        return None

    def joules() -> float:
        counted = ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(counted)):
            raise OSError("the card does not count its energy")
        return counted.value / 1000

    try:
        joules()
    except (OSError, AttributeError):
        return None
    return joules


@contextmanager
def metered(run: Path, device: Device) -> Iterator[None]:
    """Write what the card takes during the block into `run`; on a CPU, or without a counter, nothing."""
    counter = card_counter() if device == "cuda" else None
    if counter is None:
        yield
        return
    with counted(run / _name(distributed.world()[0]), counter, _EVERY):
        yield


@contextmanager
def counted(path: Path, joules: Callable[[], float], every: float) -> Iterator[None]:
    """Append what `joules` has gone up by, every so many seconds and at the end.

    A counter or a disk that fails on the way ends nothing: what it left out is in the next line that can be written.
    """
    ended = threading.Event()
    before, since = joules(), time.monotonic()

    def write() -> None:
        nonlocal before, since
        now, at = joules(), time.monotonic()
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"joules": round(now - before, 3), "seconds": round(at - since, 3)}) + "\n")
        before, since = now, at

    def follow() -> None:
        while not ended.wait(every):
            with suppress(OSError):
                write()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            write()


def total(run: Path) -> Taken | None:
    """Of all cards and all starts of a run, what was done twice after a kill included; None: not measured."""
    try:
        own = read_jsonl(run / ENERGY)
        others = [line for other in run.glob(_name("*")) for line in read_jsonl(other)]
        # The cards work side by side: their joules add up, their seconds are the same.
        return Taken(sum(line["joules"] for line in own + others), sum(line["seconds"] for line in own))
    except (MedmindError, KeyError):
        return None


def _name(rank: int | str) -> str:
    return f"energy-{rank}.jsonl" if rank else ENERGY
