"""What this machine can compute with, and the compute type that follows. Knows devices; nothing of models."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from medmind import processor
from medmind.errors import MedmindError
from medmind.memory import resident

Device = Literal["cuda", "cpu"]
Dtype = Literal["bfloat16", "float16", "float32"]
BF16_UNITS = frozenset({"amx_bf16", "avx512_bf16"})
"""CPU flags (as Linux names them) of units that multiply bf16 faster than fp32."""


@dataclass(frozen=True)
class Hardware:
    """The device a model trains on.

    Attributes:
        device: `cuda` or `cpu`.
        name: as the maker calls it.
        memory: bytes of the device's memory.
        capability: CUDA compute capability, None on a CPU.
        cpu_flags: the CPU's feature flags in Linux spelling, empty where the system does not tell.
    """

    device: Device
    name: str
    memory: int
    capability: tuple[int, int] | None = None
    cpu_flags: frozenset[str] = frozenset()

    @property
    def hopper(self) -> bool:
        """An H100 and its kin, for which torch sets aside a larger workspace."""
        return self.capability is not None and self.capability[0] == 9


def describe(wanted: str = "auto") -> Hardware:
    """The CUDA card that this process uses, or the CPU when there is none or `wanted` is `cpu`.

    Raises:
        MedmindError: `wanted` is `cuda` and torch sees no card.
    """
    import torch

    if wanted != "cpu" and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        return Hardware("cuda", card.name, card.total_memory, (card.major, card.minor))
    if wanted == "cuda":
        raise MedmindError(
            "torch sees no CUDA card", "see what is amiss with: medmind-train doctor, or give --device cpu"
        )
    import psutil

    return Hardware("cpu", processor.name(), psutil.virtual_memory().total, cpu_flags=processor.features())


def compute_dtype(hardware: Hardware, wanted: str = "auto") -> Dtype:
    """bf16 where the hardware has units for it, fp16 (with loss scaling) on older cards, fp32 on other CPUs.

    Args:
        hardware: the device.
        wanted: a type that wins over this, or `auto`.
    """
    for dtype in get_args(Dtype):
        if dtype == wanted:
            return cast(Dtype, dtype)
    if hardware.device == "cuda":
        return "bfloat16" if (hardware.capability or (0, 0)) >= (8, 0) else "float16"
    return "bfloat16" if hardware.cpu_flags & BF16_UNITS else "float32"


def peak_memory(device: Device) -> int:
    """Bytes: the most that torch had allocated on the card, or the most of this process in RAM, so far."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resident().peak
