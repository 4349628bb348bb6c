"""The cell that measures how fast this machine reads memory, with as many threads as the models compute with.

Knows numpy's fastest reading pass. Reading is what generating a token is bound by: every weight once. The buffer is far
larger than the processor's caches.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medmind_benchmarks import machine
from medmind_benchmarks.cell import Advance
from medmind_benchmarks.figures import Bandwidth
from medmind_benchmarks.statistics import repeated

_SIZE = 2**30
_LEAST = 2**27
METHOD = "numpy's maximum over 8-bit integers, each thread a part of one buffer"


@dataclass(frozen=True)
class Request:
    """How many threads read at once, how often, and the number of the measurement's round."""

    kind: Literal["bandwidth"]
    threads: int
    repeats: int
    turn: int


def measure(request: Request, advance: Advance) -> Bandwidth:
    """Read a buffer of 1 GiB, or of an eighth of the memory that is free."""
    size = max(_LEAST, min(_SIZE, machine.available_memory()[0] // 8))
    buffer = np.ones(size, dtype=np.int8)  # ones are written: untouched zero pages would all be one page
    parts = np.array_split(buffer, request.threads)
    rates = []
    with ThreadPoolExecutor(request.threads) as pool:
        list(pool.map(np.max, parts))
        for _ in range(request.repeats):
            began = time.perf_counter()
            list(pool.map(np.max, parts))
            rates.append(size / (time.perf_counter() - began))
            advance()
    return Bandwidth(repeated(rates), request.threads, size, METHOD)
