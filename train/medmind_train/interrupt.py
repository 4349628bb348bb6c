"""Ctrl-C and SIGTERM as a request that the training loop grants at a good moment. Knows signals, nothing else."""

import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from medmind import console


class Interrupt:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt, or, within `deferred`, set `requested`.

    A second signal always raises. What was stopped by SIGTERM leaves with exit code 143, as the shell would say of it.
    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._terminated = False
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
            if signal.getsignal(number) == self._handle:  # another may have been set meanwhile, which is to stay
                signal.signal(number, handler)
        if self._terminated and isinstance(error, KeyboardInterrupt):
            raise SystemExit(128 + signal.SIGTERM) from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._terminated = number == signal.SIGTERM
        if not self.deferred or self.requested:
            raise KeyboardInterrupt
        self.requested = True
        with suppress(RuntimeError):  # the signal came while this very thread was writing to the terminal
            console.note("stopping: writing a checkpoint first (once more to stop at once)")
