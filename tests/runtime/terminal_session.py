"""A program in a pseudo-terminal: types keys, waits for text, shows the screen as a person would see it."""

import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from fcntl import ioctl
from pathlib import Path
from types import TracebackType
from typing import Self

import forked
import pyte

from medmind import console

COLUMNS, ROWS = 120, 40
SECONDS = 30


class TerminalSession:
    """Ends the program when the block ends; `output` is all it ever wrote."""

    def __init__(self, command: list[str] | Callable[[], object], cwd: Path, **environment: str) -> None:
        """Start a command, or a fork of this process that calls a function: quicker by what it has imported already."""
        self.output = b""
        self._seen = 0
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

        settings = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment}
        if not isinstance(command, list):
            self.process: subprocess.Popen[bytes] | _Fork = _Fork(command, slave, cwd, settings)
            os.close(slave)
            return
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=settings,
            preexec_fn=_become_foreground,  # noqa: PLW1509 - there are no other threads here
        )
        os.close(slave)

    def press(self, text: str) -> None:
        """Send keys; `\\r` is Enter, `\\x03` Ctrl-C, `\\x04` Ctrl-D."""
        os.write(self._master, text.encode())

    def paste(self, text: str) -> None:
        """Paste as a terminal does where that was asked for; reads meanwhile, or both sides would wait."""
        data = memoryview(f"\x1b[200~{text}\x1b[201~".encode())
        os.set_blocking(self._master, False)
        deadline = time.monotonic() + SECONDS
        while data and time.monotonic() < deadline:
            readable, writable, _ = select.select([self._master], [self._master], [], 1)
            if readable:
                self._read(deadline)
            if writable:
                data = data[os.write(self._master, data[:4096]) :]
        os.set_blocking(self._master, True)
        assert not data

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size; the kernel tells the program."""
        self._screen.resize(rows, columns)
        ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: str) -> None:
        """Until `text` appears in the output after the last text waited for."""
        deadline = time.monotonic() + SECONDS
        wanted = text.encode()
        while wanted not in self.output[self._seen :]:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not appear in:\n{self.screen()}")
        self._seen = self.output.index(wanted, self._seen) + len(wanted)

    def wait_for_prompt(self) -> None:
        """Until a line can be typed; the editor then asks the terminal for bracketed paste."""
        self.wait_for("\x1b[?2004h")

    def wait_for_end(self) -> int:
        """The exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(SECONDS)

    def screen(self) -> str:
        """What is on the screen now, without trailing spaces."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the other side has gone
            return False
        self.output += data
        self._stream.feed(data)
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)


def _become_foreground() -> None:
    for number in (signal.SIGHUP, signal.SIGQUIT):  # ignored where the tests run under nohup, or in the background
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    ioctl(0, termios.TIOCSCTTY, 0)


class _Fork:
    """What is asked of a process, of a fork with a terminal."""

    def __init__(self, function: Callable[[], object], slave: int, cwd: Path, env: Mapping[str, str]) -> None:
        def start() -> None:
            _become_foreground()
            for name in ("out", "err"):  # they know whether they write to a terminal from when they were made
                vars(console).pop(name, None)
            function()

        self._code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            forked.become([slave] * 3, start, cwd, env)

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def wait(self, timeout: float = SECONDS) -> int:
        """The exit code."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return code
