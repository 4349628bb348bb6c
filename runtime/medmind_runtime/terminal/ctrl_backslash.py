"""Ctrl-\\ and `kill -QUIT` end the chat at once, and leave the terminal as it was before the chat.

Knows the signal and the terminal's settings. Knows not what is computed or shown.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_AS_BEFORE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?2004l"
"""No colour, lines wrapped, the cursor shown, a paste no longer marked: what prompts and answers change."""


@contextmanager
def restores_the_terminal() -> Iterator[None]:
    """While inside, SIGQUIT restores the terminal and then ends the process as it always does."""
    if sys.platform == "win32":
        yield
        return
    import termios

    try:
        terminal = sys.stdin.fileno()
        settings = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):  # standard input is no terminal
        yield
        return

    def quit(number: int, _frame: FrameType | None) -> None:
        with suppress(OSError, termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, settings)
            os.write(terminal, _AS_BEFORE)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGQUIT, quit)
    try:
        yield
    finally:
        signal.signal(signal.SIGQUIT, before)
