"""Ctrl-C and SIGTERM as a request that the training loop grants at a good moment. Knows signals, nothing else."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from medmind import console


class Interrupt:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt, or, within `deferred`, set `requested`.

    A second signal always raises. Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred or self.requested:
            raise KeyboardInterrupt
        self.requested = True
        console.note("stopping: writing a checkpoint first (once more to stop at once)")
