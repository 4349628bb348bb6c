"""The rate of matrix products on this machine, which a step's arithmetic is held against. Knows no model."""

import statistics
import time

import torch

from medmind_train.hardware import Device, Dtype
from medmind_train.step.document import Matmul

_SIZES = {"cuda": 8192, "cpu": 1024}
_TOGETHER = {"cuda": 16, "cpu": 1}
"""Products between two looks at the clock: on a card one alone is too short for it."""


def rate(device: Device, dtype: Dtype, *, samples: int, warmup: int, seed: int) -> Matmul:
    """Time square products of normal random numbers; zeros would be faster, as they switch fewer transistors."""
    size, together = _SIZES[device], _TOGETHER[device]
    generator = torch.Generator(device).manual_seed(seed)
    one, other = (
        torch.randn(size, size, generator=generator, device=device).to(getattr(torch, dtype)) for _ in range(2)
    )
    out = torch.empty_like(one)
    seconds = []
    for turn in range(warmup + samples):
        began = time.perf_counter()
        for _ in range(together):
            torch.mm(one, other, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        if turn >= warmup:
            seconds.append((time.perf_counter() - began) / together)
    return Matmul(size, dtype, tuple(seconds), 2 * size**3 / statistics.median(seconds))
