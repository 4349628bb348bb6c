"""How to tell that the memory is full, whoever says it, and how to give back what can be. Knows no batch."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from medmind.errors import MedmindError

_SAYINGS = (
    "out of memory",  # CUDA, HIP, Triton, pinned memory
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # torch's allocator of the host
    "not enough memory",  # the same on Windows
)


class MemoryFull(Exception):
    """The memory of the device is full, and there is no smaller way to do the work, or none was tried yet."""


def is_memory_full(error: BaseException) -> bool:
    """Whether `error`, or what led to it, says that the memory is full: a broken-off capture of a graph hides it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(seen, RuntimeError) and any(saying in str(seen) for saying in _SAYINGS):
            return True
        seen = seen.__context__
    return False


@contextmanager
def said(device: str, hint: Callable[[], str]) -> Iterator[None]:
    """Make a memory that is full within the block one line for the user.

    Args:
        device: whose memory it is.
        hint: what to do, asked for when that has happened.

    Raises:
        MedmindError: the memory is full.
    """
    try:
        yield
    except (MemoryFull, RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryFull) or is_memory_full(error)):
            raise
        raise MedmindError(f"the memory of {device} is full", hint()) from error


def give_back() -> None:
    """Free what nobody holds any more; call it where no exception of the failed work is being handled."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
