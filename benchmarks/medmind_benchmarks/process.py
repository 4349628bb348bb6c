"""The parent's side of a cell: start it, follow its progress, and never leave it behind.

Knows the protocol of `medmind_benchmarks.cell`, nothing of what is measured.
"""

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_benchmarks.cause import Cause
from medmind_benchmarks.typed_json import decode

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Result = TypeVar("Result")
CELL = (sys.executable, "-P", "-m", "medmind_benchmarks.cell")
"""-P: a file in the current directory must not stand in for a library."""


_LOOK_EVERY = 0.2
"""Seconds between two looks at a cell's memory; what it allocates faster than that, the system's own limit must end."""


@dataclass(frozen=True)
class Limits:
    """What a cell may take before it is ended; None for no limit.

    Attributes:
        seconds: of wall-clock time.
        memory: bytes of memory of its own. Pages of mapped files do not count, the system can take them back; so an
            address-space limit (RLIMIT_AS) would not do, and the cell is watched instead.
        asked: whether the limit of memory is the user's; else it is what was free.
    """

    seconds: float | None = None
    memory: int | None = None
    asked: bool = True


class CellError(MedmindError):
    """A cell that ended without a result; the message says why, `cause` of what kind that is. Others can still run."""

    def __init__(self, message: str, hint: str = "", *, cause: Cause = "other") -> None:
        super().__init__(message, hint)
        self.cause: Cause = cause


def run_cell(
    request: "DataclassInstance",
    kind: type[Result],
    *,
    advance: Callable[[], None],
    command: Sequence[str] = CELL,
    limits: Limits = Limits(),
) -> Result:
    """Measure `request` in a fresh process.

    Args:
        request: a dataclass, sent as one JSON line.
        kind: dataclass of the result.
        advance: called once for every step the cell reports.
        command: the process to start.
        limits: of the process.

    Raises:
        CellError: the cell reported an error, crashed, was killed, went over a limit, or said something else than a
            result.
    """
    with tempfile.TemporaryFile() as errors:
        # A session of its own keeps the terminal's Ctrl-C from the cell: the parent ends it, without its traceback.
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        ended: list[CellError] = []
        try:
            with _watched(process, limits, ended):
                answer = _follow(process, json.dumps(dataclasses.asdict(request)), advance)
        finally:
            process.kill()
            code = process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    _close(stream)
        errors.seek(0)
        noise = errors.read().decode("utf-8", "replace")
    if ended and (answer is None or "result" not in answer):
        raise ended[0]
    if answer is None:
        raise CellError(_why(code, noise), cause="memory" if code == -signal.SIGKILL else "other")
    if "error" in answer:
        raise CellError(str(answer["error"]))
    try:
        return decode(kind, answer["result"])
    except (KeyError, MedmindError) as error:
        raise CellError(f"the measuring process answered something unexpected: {error}") from error


def _follow(process: "subprocess.Popen[str]", request: str, advance: Callable[[], None]) -> dict[str, Any] | None:
    """The cell's last word, or None when it ended without one."""
    assert process.stdin and process.stdout
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    except OSError:  # it died at once; its exit code tells more
        process.wait()
        return None
    for line in process.stdout:
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(answer, dict) and ("result" in answer or "error" in answer):
            return answer
        advance()
    process.wait()
    return None


@contextmanager
def _watched(process: "subprocess.Popen[str]", limits: Limits, ended: list[CellError]) -> Iterator[None]:
    """End the process when it goes over a limit, and put the reason into `ended`."""
    over = threading.Event()

    def watch() -> None:
        began = time.monotonic()
        while not over.wait(_LOOK_EVERY):
            if limits.seconds is not None and time.monotonic() - began > limits.seconds:
                reason = f"it took longer than its limit of {limits.seconds:g} s"
                ended.append(CellError(reason, cause="cell time"))
            elif limits.memory is not None and (used := _own_memory(process.pid)) > limits.memory:
                whose = "--cell-memory" if limits.asked else "nearly all that was free"
                own, most = human_bytes(used), human_bytes(limits.memory)
                reason = f"it had {own} of memory of its own, its limit is {most} ({whose})"
                ended.append(CellError(reason, cause="cell memory" if limits.asked else "memory"))
            if ended:
                process.kill()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    if limits.seconds is not None or limits.memory is not None:
        watcher.start()
    try:
        yield
    finally:
        over.set()
        if watcher.is_alive():
            watcher.join()


def _own_memory(pid: int) -> int:
    """Resident bytes that no file backs; all resident ones where the system does not tell them apart."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))


def _close(stream: Any) -> None:
    try:
        stream.close()
    except OSError:  # a request the dead cell never read is still in the buffer
        return


def _why(code: int, noise: str) -> str:
    lines = [line.strip() for line in noise.splitlines() if line.strip()]
    last = f": {lines[-1]}" if lines else ""
    if code >= 0:
        return f"the measuring process ended with exit code {code}{last}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "the measuring process was killed (SIGKILL): most likely the system ran out of memory"
    return f"the measuring process crashed ({name}){last}"
