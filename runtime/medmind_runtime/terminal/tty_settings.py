"""A terminal's settings, put back to what they were before the chat, whatever ends it.

Knows SIGQUIT (Ctrl-\\ while something is computed or said, `kill -QUIT`), behind which no `finally` runs. Knows not
what is computed or shown.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_NEW_LINE = b"\x1b[J\r\n"
"""Nothing left of a prompt behind the cursor, and the shell's in a line of its own."""
_AS_BEFORE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?2004l"
"""No colour, lines wrapped, the cursor shown, a paste no longer marked: what prompts and answers change."""


def of_input() -> tuple[int, list[Any]] | None:
    """The descriptor of standard input and its settings, as `termios` has them; None where it is no terminal."""
    if sys.platform == "win32":
        return None
    import termios

    try:
        terminal = sys.stdin.fileno()
        return terminal, termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):
        return None


@contextmanager
def put_back() -> Iterator[None]:
    """While inside, an exception and SIGQUIT put the settings back; then SIGQUIT ends the process as it always does.

    An exception that a signal becomes may leave the editor's prompt where nothing of the editor's own cleans up.
    """
    found = of_input()
    if found is None:
        yield
        return
    import termios

    terminal, settings = found

    def put(before: bytes = b"") -> None:
        with suppress(OSError, termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, settings)
            os.write(terminal, before + _AS_BEFORE)

    def quit(number: int, _frame: FrameType | None) -> None:
        put(_NEW_LINE)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGQUIT)
    if before == signal.SIG_DFL:  # not where it is ignored
        signal.signal(signal.SIGQUIT, quit)
    try:
        yield
    except SystemExit:
        put(_NEW_LINE)
        raise
    except BaseException:
        put()
        raise
    finally:
        signal.signal(signal.SIGQUIT, before)
