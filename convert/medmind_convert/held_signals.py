"""Signals held back while C code runs that calls Python back: there an exception is printed by ctypes, and lost.

Knows which signals end a command, and no C library.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class HeldSignals:
    """Notes Ctrl-C, SIGTERM and SIGHUP; a context manager, whose end hands the first of them to its own handler.

    True once a signal was noted: a callback asks that to end the computation. What is ignored or kills at once stays
    so, and outside the main thread, which no signal reaches, nothing is held.
    """

    def __init__(self) -> None:
        self._holding = False
        self._noted: list[tuple[int, FrameType | None]] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._noted)

    def __enter__(self) -> Self:
        self._noted.clear()
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                handler = signal.getsignal(number)
                if callable(handler) and handler != self._note:
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        self._holding = True  # last: whatever a signal ends before it, no handler is left that swallows the next one
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holding = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._noted:
            number, frame = self._noted[0]
            self._handlers[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self._noted.append((number, frame))
        else:
            self._handlers[number](number, frame)
