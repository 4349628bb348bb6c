"""What ends a program from outside: SIGINT, SIGTERM and SIGHUP become exceptions, but never in the middle of an import,
and are held back where an exception would be lost.

Knows signals and how Python imports. Knows not what is to be put in order on the way out.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_IMPORTS = "<frozen importlib._bootstrap>"
"""Where Python's import has its code, and its locks, one for each module."""
_SOON = 0.005
"""Seconds until it is looked again whether an import has ended."""
_PATIENCE = 1.0
"""Seconds from which on the lines of a module that is imported (torch's take many) are broken off all the same."""
_told: dict[int, float] = {}
"""What came in the middle of an import, and when."""


def numbers() -> list[int]:
    """Those of them that this system has."""
    return [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]


def become_exceptions() -> None:
    """From now on KeyboardInterrupt, or SystemExit with the shell's exit code; what is ignored (nohup) stays so.

    Within the code of an import an exception may be lost, or leave a lock behind for which another thread that imports
    waits for ever, and whoever waits for that thread too. So what comes then is raised after the import.
    """
    for number in numbers():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            hear(number)


def hear(number: int) -> None:
    """Make an exception of one of them from now on, also where it was ignored."""
    signal.signal(number, _end)


def kill() -> None:
    """From now on they end the process at once: nothing is left to be put in order."""
    for number in numbers():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> None:
    """`_` may be of another moment, where somebody has held the signal back."""
    frame = sys._getframe(1)
    if frame.f_code is _again.__code__:
        frame = frame.f_back or frame
    now = time.monotonic()
    waited = now - _told.setdefault(number, now)
    if hasattr(signal, "setitimer") and _importing(frame, outermost=waited < _PATIENCE):
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, _SOON)
        return
    _told.clear()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _again(_number: int, _frame: FrameType | None) -> None:
    """Send it once more: by now somebody else may hear it, or hold it back."""
    if not _told:
        return
    number = max(_told, key=lambda told: told != signal.SIGINT)  # Ctrl-C last: a program may outlive it
    if signal.getsignal(number) is not _end:
        del _told[number]
    signal.raise_signal(number)


def _importing(frame: FrameType | None, *, outermost: bool) -> bool:
    """Whether an import goes on around a frame; without `outermost` only whether the frame is of its own code."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back if outermost else None
    return False


@contextmanager
def held() -> Iterator[list[tuple[int, FrameType | None]]]:
    """Note what would end the program, and hand it to the program's own handlers afterwards.

    For what must not be broken off by half, and for C that calls Python back: what a handler raises at the entry of a
    callback is printed and lost by ctypes. An answer went on behind Ctrl-C, and a process that was told to end ended
    well. Only the main thread's signals are held, as only there handlers run; and none that the program leaves to the
    system.

    Yields:
        The numbers and frames of what has come: callbacks should end the computation where there are any.
    """
    noted: list[tuple[int, FrameType | None]] = []
    main = threading.current_thread() is threading.main_thread()
    before = {number: handler for number in numbers() if main and callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, frame: noted.append((number, frame)))
    try:
        yield noted
    finally:
        for number, handler in reversed(before.items()):  # Ctrl-C last: the program may outlive it
            signal.signal(number, handler)
        frames = dict(noted)
        for number, handler in reversed(before.items()):
            if number in frames:
                handler(number, frames[number])
