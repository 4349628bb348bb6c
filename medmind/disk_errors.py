"""What the system says when a file cannot be written: which errors mean full, what helps, and which file it was.

Knows no format and no command; what is kept and how to go on, those who write know.
"""

import errno
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

FREE = "free some disk space, or write to another disk with --out"
WAYS_ON = {
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or take smaller files",
}
"""The errors of a disk, a quota or a file that is full, each with what a person can do about it."""


@contextmanager
def named(file: Path, only: Container[int | None] | None = None) -> Iterator[None]:
    """Give the system's errors in the block the name of a file, which those of an open file lack.

    Args:
        file: that they are of.
        only: numbers of the errors that can be no other file's; None for all.
    """
    try:
        yield
    except OSError as error:
        if error.filename or not (only is None or error.errno in only):
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error
