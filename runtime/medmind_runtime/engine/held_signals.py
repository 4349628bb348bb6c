"""Signals that arrive while C computes, and calls Python back. Knows not what it computes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from medmind import signals


@contextmanager
def held() -> Iterator[list[tuple[int, FrameType | None]]]:
    """Note what would end the program, and hand it to the program's own handlers afterwards.

    What a handler raises at the entry of a callback from C is printed and lost by ctypes: an answer went on behind
    Ctrl-C, and a process that was told to end ended well. Only the main thread's signals are held, as only there
    handlers run; and none that the program leaves to the system.

    Yields:
        The numbers and frames of what has come: the callbacks should end the computation where there are any.
    """
    noted: list[tuple[int, FrameType | None]] = []
    main = threading.current_thread() is threading.main_thread()
    numbers = signals.numbers() if main else []
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
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
