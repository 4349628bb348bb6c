"""A command in a fork of the test's process: its own streams, folder, signals and exit code, as from a shell, without
the seconds in which a fresh process imports what this one has imported already.

What is read while modules are imported (PYTHONIOENCODING, FORCE_COLOR, ...) is this process's: tests of that start one.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NoReturn

available = hasattr(os, "fork")


class Forked:
    """A fork that calls `function`, whose SystemExit is its end."""

    def __init__(
        self, function: Callable[[], object], *, cwd: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> None:
        self._streams: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - open till read
        self._streams[0].write(stdin)
        self._streams[0].seek(0)
        self._pid = os.fork()
        if not self._pid:
            become([one.fileno() for one in self._streams], function, cwd, env or {})

    def wait(self, timeout: float = 60) -> "subprocess.CompletedProcess[bytes]":
        """Its exit code (negative: a signal's number) and what it wrote; killed after `timeout` seconds."""
        deadline, pause = time.monotonic() + timeout, 0.001
        while not (ended := os.waitpid(self._pid, os.WNOHANG))[0] and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        if not ended[0]:
            os.kill(self._pid, signal.SIGKILL)
            ended = os.waitpid(self._pid, 0)
        written = []
        for stream in self._streams[1:]:
            stream.seek(0)
            written.append(stream.read())
        return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(ended[1]), *written)


def become(streams: list[int], function: Callable[[], object], cwd: Path, env: Mapping[str, str]) -> NoReturn:
    """In a fork: be a program that calls `function`, with these for its standard streams."""
    code: object = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8")
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", encoding="utf-8")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(env)
        os.chdir(cwd)
        function()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:  # no other way out: what pytest has still to do is not for this process
        for text in (sys.stdout, sys.stderr):
            text.flush()
        os._exit(code if isinstance(code, int) else 1)
