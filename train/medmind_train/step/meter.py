"""Memory as torch counts it, as the driver does and as the system does, from a process's start. Knows no model."""

import os
import subprocess
from dataclasses import dataclass

from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind.memory import resident
from medmind_train.hardware import Device
from medmind_train.step.document import Memory


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi says of the card, asked before torch touches it; empty where it does not answer."""

    version: str | None = None
    used: int | None = None


def ask_driver() -> Driver:
    """The driver's version, and the bytes in use on the card."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", "-i", visible, "--query-gpu=driver_version,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        version, used = done.stdout.splitlines()[0].split(",")
        return Driver(version.strip(), int(used) * 2**20)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return Driver()


class Meter:
    """Follows one process from before its model to after its steps."""

    def __init__(self, device: Device, driver: Driver) -> None:
        self.on_card = device == "cuda"
        self.before = driver.used
        self.loaded: tuple[int, int, int] | None = None
        self.device_peak: int | None = None

    def begin(self, cap: int | None) -> None:
        """Forget what making the weights took of the card; from now on torch may reserve `cap` bytes at most.

        Raises:
            MedmindError: a cap without a card, or above its memory.
        """
        import torch

        if not self.on_card:
            if cap is not None:
                raise MedmindError("--cap is of a card's memory, and this runs on the CPU", "leave --cap out")
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if cap is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            if cap > total:
                raise MedmindError(f"--cap {human_bytes(cap)} is above the card's {human_bytes(total)}", "give less")
            torch.cuda.set_per_process_memory_fraction(cap / total)

    def end_of_loading(self) -> None:
        """Take the peaks of loading, and let those of the steps begin."""
        import torch

        if self.on_card:
            torch.cuda.synchronize()
            self.loaded = (
                torch.cuda.memory_allocated(),
                torch.cuda.max_memory_allocated(),
                torch.cuda.max_memory_reserved(),
            )
            torch.cuda.reset_peak_memory_stats()
        self.sample()

    def sample(self) -> None:
        """Ask the driver how much is in use now."""
        import torch

        if self.on_card:
            free, total = torch.cuda.mem_get_info()
            self.device_peak = max(self.device_peak or 0, total - free)

    def memory(self, pinned: int | None) -> Memory:
        """Everything so far; a run that stopped while it loaded has no figures of steps."""
        import torch

        static = load_allocated = load_reserved = step_allocated = step_reserved = total = None
        if self.on_card:
            self.sample()
            total = torch.cuda.get_device_properties(0).total_memory
            peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
            if self.loaded is None:
                load_allocated, load_reserved = peaks
            else:
                static, load_allocated, load_reserved = self.loaded
                step_allocated, step_reserved = peaks
        return Memory(
            static=static,
            load_allocated=load_allocated,
            load_reserved=load_reserved,
            step_allocated=step_allocated,
            step_reserved=step_reserved,
            device_before=self.before if self.on_card else None,
            device_peak=self.device_peak,
            device_total=total,
            host_peak=resident().peak,
            host_pinned=pinned,
        )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that memory is full, on the card or on the host."""
    import torch

    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():  # a library's own CUDA call
            return True
        error = error.__cause__
    return False
