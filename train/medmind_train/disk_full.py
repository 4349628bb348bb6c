"""A disk that fills while a run writes: told apart from other errors, and said with how to go on. Knows no format."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medmind import disk_errors
from medmind.errors import MedmindError
from medmind_train import launch


@contextmanager
def said(run: Path, begun: Callable[[], bool]) -> Iterator[None]:
    """Make a full disk (or quota, or file size limit) within the block one line for the user.

    Args:
        begun: whether the run's own record is written, so that it can be resumed.

    Raises:
        MedmindError: the disk of `run` is full; what was whole in the run still is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in disk_errors.WAYS_ON:
            raise
        what = f"the disk of {run} is full ({error.strerror})"
        if not begun():
            raise MedmindError(f"{what}; nothing of the new run is left", "free some space and start again") from error
        raise MedmindError(
            f"{what}; its last whole checkpoint and its metrics are as they were",
            f"free some space and go on with: {launch.resume_command(run)}",
        ) from error
