"""Reads what a person types: line editing, paste, history and completion in a terminal, without any socket.

History lives in memory only. Knows nothing of what the lines mean, but for the names it completes.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

Read = Callable[[], str]
"""Returns one input; raises EOFError at its end and KeyboardInterrupt on Ctrl-C."""
_PROMPT = "> "


class _PipeEnd:
    """The few methods of a socket that asyncio needs of its wake-up channel, on one end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def recv(self, count: int) -> bytes:
        return os.read(self._descriptor, count)

    def send(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        os.close(self._descriptor)


class _SocketlessLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, waking itself by a pipe and not by a pair of sockets: chat makes no socket at all."""

    def _make_self_pipe(self) -> None:
        reader, writer = os.pipe()
        own: Any = self
        own._ssock, own._csock = _PipeEnd(reader), _PipeEnd(writer)
        own._internal_fds += 1
        own._add_reader(reader, own._read_from_self)


def reader(commands: Iterable[str]) -> Read:
    """How to read here: an editor where input and output are terminals, plain lines otherwise."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _read_plainly
    return _editor(sorted(commands))


def _read_plainly() -> str:
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _editor(commands: list[str]) -> Read:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output.color_depth import ColorDepth

    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        multiline=True,
        key_bindings=keys,
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=Condition(lambda: session.default_buffer.text.startswith("/")),
        color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        enable_suspend=True,
    )
    if os.name == "nt":  # the console there is no file descriptor that a selector could watch
        return lambda: session.prompt(_PROMPT)
    loop = _SocketlessLoop()
    return lambda: loop.run_until_complete(session.prompt_async(_PROMPT))
