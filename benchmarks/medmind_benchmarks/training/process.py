"""The parent's side of `medmind-train` commands: one process each, with a limit of time, and never left behind.

Not even where the parent is killed: see `leash`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, TypeVar

from medmind.errors import MedmindError
from medmind_benchmarks.process import CellError
from medmind_benchmarks.training import leash
from medmind_benchmarks.typed_json import decode
from medmind_train.step.document import SCHEMA, StepDocument

Document = TypeVar("Document")
_LEASH = (sys.executable, "-I", "-S", leash.__file__)


def run_step(command: Sequence[str], *, timeout: float) -> StepDocument:
    """Run one measurement to its end.

    Args:
        command: `medmind-train step … --json`.
        timeout: seconds; a cell that takes longer is killed.

    Raises:
        CellError: it took too long, failed, was killed, or printed something else than a measurement.
    """
    return run_document(command, StepDocument, SCHEMA, timeout=timeout)


def run_document(command: Sequence[str], kind: type[Document], schema: str, *, timeout: float) -> Document:
    """Run a command that prints one JSON document, and read it.

    Args:
        command: with its `--json`.
        kind: dataclass of the document.
        schema: what its `schema` must say.
        timeout: seconds; a process that takes longer is killed.

    Raises:
        CellError: it took too long, failed, was killed, or printed something else.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as noise:
        # A session of its own keeps the terminal's Ctrl-C from the cell, and lets what it starts be ended with it.
        process = subprocess.Popen(
            [*_LEASH, *command],
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=noise,
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CellError(f"it took longer than {timeout:g} s and was ended") from None
        finally:
            _end(process)
        if code != 0:
            raise CellError(_why(code, _text(noise)))
        return _read(_text(answer), kind, schema)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the cell and what it started; what is gone already stays so."""
    assert process.stdin
    process.stdin.close()  # the leash ends what it holds
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(text: str, kind: type[Document], schema: str) -> Document:
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("schema") != schema:
            raise CellError(f"the measuring process printed no {schema} document")
        return decode(kind, document)
    except json.JSONDecodeError as error:
        raise CellError(f"the measuring process printed no JSON: {error}") from error
    except CellError:
        raise
    except MedmindError as error:
        raise CellError(f"the measuring process printed something unexpected: {error}") from error


def _why(code: int, noise: str) -> str:
    lines = [line.strip() for line in noise.splitlines() if line.strip()]
    if code >= 0:
        last = lines[-1].removeprefix("error: ") if lines else "it said nothing"
        return last if code == 1 else f"exit code {code}: {last}"
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL): most likely the system ran out of memory"
    with contextlib.suppress(ValueError):
        return f"it crashed ({signal.Signals(-code).name})"
    return f"it crashed (signal {-code})"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
