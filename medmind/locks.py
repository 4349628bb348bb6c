"""Files that one process writes at a time. The system holds the lock, and frees it however the process ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from medmind.errors import MedmindError


@contextmanager
def exclusive(lock: Path, final: Path) -> Iterator[None]:
    """Hold the file `lock`, which is made for it and removed, while `final` is written: a file or a folder.

    Raises:
        MedmindError: another process holds it.
    """
    with lock.open("a+b") as stream:
        hold(stream, final)
        if not lock.exists() or not os.path.samestat(lock.stat(), os.fstat(stream.fileno())):
            raise MedmindError(f"another process was just writing {final}", "try again")  # and removed this lock
        try:
            yield
        finally:
            if sys.platform != "win32":  # which removes no open file; there it stays, empty
                lock.unlink(missing_ok=True)


def hold(stream: BinaryIO, final: Path) -> None:
    """Hold a file until it is closed, or the process ends.

    Raises:
        MedmindError: another process holds it, which is writing `final`.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise MedmindError(f"another process is writing {final}", "wait for it, or choose another --out") from None
