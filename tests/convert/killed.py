"""Runs `medmind-convert` again and again, each in a process forked from one that has everything imported, and kills it.

A program: reads one attempt a line from standard input, as JSON, and answers each with a line of JSON.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")
"""What Python's audit hooks tell of changes to files."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        code: exit code, or minus the signal's number.
        seconds: that it lasted.
        events: changes to files in the folder, as far as they were counted: 0 of a killed one.
        begun: tensors on which work began, in order.
        errors: what it said on standard error.
    """

    code: int
    seconds: float
    events: int
    begun: list[str]
    errors: str


class Forks:
    """Attempts at one command.

    Args:
        process: this program, running.
        folder: where the command runs; it must hold nothing else of it than what the command makes.
    """

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process = process
        self._folder = folder

    def attempt(self, *arguments: object, seconds: float | None = None, event: int | None = None) -> Ended:
        """Run the command; kill it after some time, or right before the event of that number (from 1)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        plan = {"argv": list(map(str, arguments)), "cwd": str(self._folder), "seconds": seconds, "event": event}
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


@contextmanager
def forks(folder: Path) -> Iterator[Forks]:
    """The program, ready to fork."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Forks(process, folder)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _child(plan: dict[str, Any], log: int, told: int) -> None:
    """The command, in a process of its own."""
    from medmind import console
    from medmind_convert import one_pass
    from medmind_convert.cli import app

    os.setsid()
    os.chdir(plan["cwd"])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(told, 2)
    counted = 0
    make = one_pass._make

    def making(merged: Any, *rest: Any) -> Any:
        os.write(log, merged.placement.target.encode() + b"\n")
        return make(merged, *rest)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal counted
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.path.abspath(arguments[0])  # noqa: PTH100 - pathlib would raise events of its own
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if event != "open" and arguments[-1] not in (None, -1):  # relative to a folder that it names by a descriptor
            return
        if path.startswith(plan["cwd"] + os.sep):
            counted += 1
            if counted == plan["event"]:
                os.kill(os.getpid(), signal.SIGKILL)

    one_pass._make = making
    sys.addaudithook(hook)
    sys.argv = ["medmind-convert", *plan["argv"]]
    try:
        console.run(app)
    except SystemExit as ended:
        os.write(log, f"events {counted}\n".encode())
        os._exit(int(ended.code or 0))


def _attempt(plan: dict[str, Any]) -> dict[str, Any]:
    log, told = (os.memfd_create(name) for name in ("log", "told"))
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(plan, log, told)
        os._exit(99)
    waiting = os.pidfd_open(child)
    ended, _, _ = select.select([waiting], [], [], plan["seconds"])
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - began
    texts = []
    for file in (log, told):
        os.lseek(file, 0, os.SEEK_SET)
        with os.fdopen(file, "rb") as stream:
            texts.append(stream.read().decode())
    os.close(waiting)
    lines = texts[0].splitlines()
    events = int(lines.pop().removeprefix("events ")) if lines and lines[-1].startswith("events ") else 0
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": seconds, "events": events, "begun": lines, "errors": texts[1]}


def main() -> None:
    """Import what a conversion does, then fork at every line."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type] - as `medmind-convert` does
    import sentencepiece  # noqa: F401
    import tokenizers  # noqa: F401
    from transformers import AutoTokenizer, LlamaTokenizerFast  # noqa: F401

    from medmind import llama
    from medmind_convert import cli, companions, gguf_options  # noqa: F401

    llama.load()
    for line in sys.stdin:
        print(json.dumps(_attempt(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
