"""The one pass over a base: each tensor is read once, merged, quantized for every file in the making, put in its place.

Worker threads take blocks of rows from the file to their last bytes; the calling thread digests and writes them in
order.
"""

import ctypes
import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmind_convert import ggml
from medmind_convert.adapter import Delta
from medmind_convert.architecture import Placement
from medmind_convert.ggml import Type
from medmind_convert.merge import Merged, store
from medmind_convert.nf4 import Nf4Tensor
from medmind_convert.partial import Partial
from medmind_convert.weights import Tensor

Importance = Callable[[str, int], NDArray[np.float32] | None]
"""Tensor name and columns -> importance of each column, or None where nothing is known of it."""
AHEAD = 2
"""Blocks a thread may be ahead of the writing: enough that none waits, few enough to stay small in memory."""


@dataclass(frozen=True)
class Step:
    """One tensor of the pass.

    Attributes:
        placement: its names, shape and row order.
        tensor: of the base, as stored or as NF4 leaves it.
        delta: the adapter's change, or None.
    """

    placement: Placement
    tensor: Tensor | Nf4Tensor
    delta: Delta | None


@dataclass(frozen=True)
class _Block:
    """One block of rows on its way: rows from `at` on, `weights` values, the tensor's last block or not."""

    step: Step
    wanted: tuple[Partial, ...]
    at: int
    weights: int
    last: bool
    made: Future[dict[Type, NDArray[np.uint8]]]


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""


def _keep_freed_memory() -> None:
    """Let one block's memory serve the next, in the whole process from now on.

    glibc gives arrays of this size back to the system as soon as they are freed; to get their pages again was 5 of the
    13 CPU seconds of a q8_0 file of two 7B layers. 32 MiB is the most that it takes for the second.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 64 << 20)
        mallopt(_MMAP_THRESHOLD, 32 << 20)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    steps: Iterable[Step],
    outputs: Sequence[Partial],
    *,
    importance: Importance,
    threads: int,
    advance: Callable[..., None],
    after: Callable[[Step], None],
) -> None:
    """Bring every tensor into every file that lacks it. Tells glibc to keep memory that was freed.

    Args:
        steps: the tensors, in the order in which they are read.
        outputs: the files.
        importance: for quantized types.
        threads: that merge and quantize.
        advance: is called with a number of weights and the tensor's name.
        after: is called when a tensor has been read, and may raise.

    Raises:
        MedmindError: NaN or infinity, an overflow, a file that is cut.
        OSError: reading or writing failed.
    """
    _keep_freed_memory()
    with ThreadPoolExecutor(threads, thread_name_prefix="quantize") as pool:
        waiting: deque[_Block] = deque()
        digests: dict[Type, hashlib._Hash] = {}
        try:
            for block in _blocks(steps, outputs, importance, pool, advance):
                waiting.append(block)
                if len(waiting) > AHEAD * threads:
                    _take(waiting.popleft(), digests, advance, after)
            while waiting:
                _take(waiting.popleft(), digests, advance, after)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _blocks(
    steps: Iterable[Step],
    outputs: Sequence[Partial],
    importance: Importance,
    pool: ThreadPoolExecutor,
    advance: Callable[..., None],
) -> Iterator[_Block]:
    for step in steps:
        name, shape = step.placement.target, step.placement.shape
        wanted = tuple(output for output in outputs if name in output.slots and name not in output.done)
        if not wanted:
            advance(int(np.prod(shape)), name)
            continue
        kinds = tuple({output.slots[name].kind for output in wanted})
        weights = importance(name, shape[-1]) if any(kind.quantized for kind in kinds) else None
        merged = Merged(step.placement, step.tensor, step.delta)
        ranges = merged.blocks()
        scaled = _measured(step.tensor, pool)
        for start, stop in ranges:
            made = pool.submit(_make, merged, start, stop, kinds, weights, scaled)
            size = (stop - start) * int(np.prod(shape[1:], dtype=np.int64))
            yield _Block(step, wanted, start, size, stop == ranges[-1][1], made)


def _measured(tensor: Tensor | Nf4Tensor, pool: ThreadPoolExecutor) -> list[Future[None]]:
    """NF4's scales hang on the whole tensor: they are found by all threads, before its first block."""
    return [pool.submit(tensor.measure, *part) for part in tensor.ranges()] if isinstance(tensor, Nf4Tensor) else []


def _make(
    merged: Merged,
    start: int,
    stop: int,
    kinds: Sequence[Type],
    weights: NDArray[np.float32] | None,
    scaled: Sequence[Future[None]],
) -> dict[Type, NDArray[np.uint8]]:
    """Bytes of a block of rows in each of the types."""
    for part in scaled:  # the pool began them before
        part.result()
    values = merged.rows(start, stop)
    found = {}
    for kind in kinds:
        if kind.name in ("F32", "F16", "BF16"):
            stored = store(values, kind.name, merged.tensor)  # type: ignore[arg-type]
            found[kind] = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
        else:
            found[kind] = ggml.quantize(values, kind, weights).reshape(-1)
    return found


def _take(
    block: _Block, digests: dict[Type, "hashlib._Hash"], advance: Callable[..., None], after: Callable[[Step], None]
) -> None:
    """Digest and write a block; note its tensor as finished after the last one."""
    made, name = block.made.result(), block.step.placement.target
    for kind, data in made.items():
        digests.setdefault(kind, hashlib.sha256()).update(data.data)
    for output in block.wanted:
        slot = output.slots[name]
        row = slot.size // slot.shape[0]
        output.write(name, block.at * row, made[slot.kind].data)
    advance(block.weights, name)
    if block.last:
        after(block.step)
        for output in block.wanted:
            slot = output.slots[name]
            output.finish(name, _padded(digests[slot.kind], slot.padding))
        digests.clear()


def _padded(digest: "hashlib._Hash", padding: int) -> str:
    whole = digest.copy()
    whole.update(b"\0" * padding)
    return f"sha256:{whole.hexdigest()}"
