"""Ctrl-C while something is computed: it asks that to stop, and once more, where that is not heard, it leaves.

Knows the signal and the terminal's echo. Knows not what is computed.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from medmind_runtime.terminal import tty_settings

_PATIENCE = 0.5
"""Seconds that an answer has for stopping before another Ctrl-C leaves; two quick ones are one wish."""


class Leave(KeyboardInterrupt):
    """Ctrl-C again while an answer does not stop."""


class CtrlC:
    """What Ctrl-C does.

    Attributes:
        pressed: whether it was, since `asks` began last.
    """

    def __init__(self) -> None:
        self.pressed = False

    @contextmanager
    def asks(self, *, leaves: bool = True) -> Iterator[None]:
        """While inside, Ctrl-C only sets `pressed`.

        Args:
            leaves: whether another one raises `Leave`; False where nothing may go on before the end.
        """
        self.pressed = False
        first = 0.0

        def press(_number: int, _frame: FrameType | None) -> None:
            nonlocal first
            if leaves and self.pressed and time.monotonic() - first > _PATIENCE:
                raise Leave
            first = first if self.pressed else time.monotonic()
            self.pressed = True

        before = signal.signal(signal.SIGINT, press)
        try:
            with _unechoed():
                yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _unechoed() -> Iterator[None]:
    """While inside, keys typed ahead wait for the next prompt: not shown within the answer, not lost at Ctrl-C."""
    found = tty_settings.of_input()
    if found is None:
        yield
        return
    import termios

    terminal, before = found
    quiet = before.copy()
    quiet[3] = (quiet[3] & ~termios.ECHO) | termios.NOFLSH
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
