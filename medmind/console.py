"""How medmind speaks to people and scripts: progress, tables, one-line errors, JSON. Knows no stage's vocabulary."""

import json
import logging
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from medmind import disk_errors, signals
from medmind.errors import MedmindError, one_line

if TYPE_CHECKING:
    from rich.console import Console

    out: Console
    """Results a person asked for (stdout)."""
    err: Console
    """Progress, notices and errors (stderr), so that stdout stays clean for pipes and `--json`."""

_UNSHOWN = dict.fromkeys((7, 8, 11, 12, 13))
"""Control characters that rich leaves out of a text."""


def __getattr__(name: str) -> "Console":
    """`out` and `err`, made when first used: chat's prompt does not wait for rich's import."""
    if name not in {"out", "err"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _console(name)


def _console(name: str) -> "Console":
    if name not in globals():
        from rich.console import Console

        globals()[name] = Console(stderr=name == "err", highlight=False, soft_wrap=True)
    made: Console = globals()[name]
    return made


def run(app: Callable[[], Any]) -> None:
    """Run a command-line app; a MedmindError becomes one line on stderr and exit code 1, Ctrl-C exit code 130."""
    quiet_libraries()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as in `medmind-chat >&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for good
    signals.become_exceptions()  # what is half-written is removed on `kill` as it is on Ctrl-C
    try:
        app()
    except MedmindError as error:
        fail(str(error))
    except OSError as error:
        if error.errno is None:  # raised by a library with a free text, not by the system
            raise
        where = f" {error.filename}:" if error.filename else ""
        advice = " — make room there, or write elsewhere" if error.errno in disk_errors.WAYS_ON else ""
        fail(f"{where} {error.strerror}{advice}".strip())
    except KeyboardInterrupt:
        sys.exit(130)


def stdout_closed() -> bool:
    """Whether this process was begun without a standard output: what is written goes nowhere, as `run` sees to."""
    return sys.__stdout__ is None


def fail(line: str) -> None:
    """Print one `error: …` line on stderr and exit with code 1."""
    from rich.text import Text

    _console("err").print(Text.assemble(("error: ", "bold red"), one_line(line)))
    sys.exit(1)


def silence(silent: bool = True) -> None:
    """Say nothing to people from here on, or talk again: of several processes that do one thing, one is to talk."""
    _console("out").quiet = _console("err").quiet = silent


def note(message: str) -> None:
    """One line for a person on stderr; on a terminal it is broken between words."""
    message = _filled(message)
    if "err" not in globals():  # nothing is drawn that a line could tear
        sys.stderr.write(message.translate(_UNSHOWN) + "\n")
        sys.stderr.flush()
        return
    from rich.text import Text

    _console("err").print(Text(message))


def _filled(message: str) -> str:
    if not sys.stderr.isatty():
        return message
    width = shutil.get_terminal_size().columns
    lines = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in message.split("\n"))
    return "\n".join("\n".join(line) for line in lines)


def emit_json(document: Mapping[str, Any]) -> None:
    """Write `document` as the only thing on stdout."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:  # a Windows pipe, or a file name that is not valid text
        text = json.dumps(document, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def human_bytes(count: float) -> str:
    """`count` bytes in binary units, as `4.07 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise a MedmindError with the install line of the extra that brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise MedmindError(
            f"the Python package '{missing}' is needed here and not installed",
            f"run: pip install 'medmind[{extra}]'",
        ) from error


def quiet_libraries() -> None:
    """Keep library chatter off the terminal; variables the user has set win."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)


class Progress(Protocol):
    """What `progress` is called like, for those who show progress elsewhere."""

    def __call__(
        self, description: str, total: float | None, unit: str = "it"
    ) -> AbstractContextManager[Callable[..., None]]:
        """See `progress`."""
        ...


@contextmanager
def progress(description: str, total: float | None, unit: str = "it") -> Iterator[Callable[..., None]]:
    """A progress line on stderr with rate and remaining time; the unit "B" is shown as KiB, MiB, GiB.

    Yields:
        `advance(amount=1, status="")`; `status` is a short text shown at the end of the line.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    err = _console("err")

    class RateColumn(ProgressColumn):
        """Completed units per second, as rich measures them over the recent past."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s", style="progress.data.speed")

    with Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        *((DownloadColumn(True), TransferSpeedColumn()) if unit == "B" else (MofNCompleteColumn(), RateColumn())),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=err,
        disable=not err.is_terminal,
    ) as bar:
        task = bar.add_task(description, total=total, status="")

        def advance(amount: float = 1, status: str = "") -> None:
            bar.update(task, advance=amount, status=status)

        yield advance
