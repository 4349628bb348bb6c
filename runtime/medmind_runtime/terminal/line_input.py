"""Reads what a person types: line editing, paste, history and completion in a terminal, without any socket.

History lives in memory only, unless a file is given for it. Knows nothing of what the lines mean, but for completion.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from medmind import console
from medmind.errors import MedmindError
from medmind.signals import held
from medmind_runtime import private_file
from medmind_runtime.interruption import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History

_PROMPT = "> "
_LARGE_PASTE = 4000
"""Characters from which a paste is shown as one mark: an editor that draws a megabyte anew at each key stands still."""
_MARK = re.compile(r"\[paste \d+: [\d,]+ characters\]")

Arguments = Mapping[str, "list[str] | None"]
"""What can be completed: command → words that may follow it; None for the name of a file."""


class Read(Protocol):
    """Returns one input; raises EOFError at its end, KeyboardInterrupt on Ctrl-C, Interrupted on one behind Enter."""

    def __call__(self, default: str = "") -> str:
        """Read; `default` is in the line already and can be edited."""
        ...


class Model(Protocol):
    """What a prompt shows of a model that loads behind it; see `medmind_runtime.background.Background`."""

    @property
    def ready(self) -> bool: ...  # noqa: D102

    @property
    def error(self) -> BaseException | None: ...  # noqa: D102

    def start(self) -> None: ...  # noqa: D102


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


def is_interactive() -> bool:
    """Whether a person can edit lines here."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def read_plainly(default: str = "") -> str:
    """A line of standard input, where that or the output is no terminal."""
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


class Editor:
    """Reads lines with an editor.

    Args:
        commands: what can be completed.
        help: what each command does, shown beside its name.
        model: returns the model that loads behind the prompt; its loading begins when the first prompt is shown, and
            when it fails, its error is raised out of the prompt.
        history: where lines are kept; None forgets them at the end.
    """

    def __init__(
        self,
        commands: Arguments,
        help: Mapping[str, str],
        model: Callable[[], Model],
        *,
        history: Path | None = None,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.output.color_depth import ColorDepth

        self._model = model
        self._pastes: dict[str, str] = {}
        self._unkept: list[MedmindError] = []
        with held():  # half made it could not even be thrown away in silence
            self._loop = None if os.name == "nt" else _SocketlessLoop()  # no selector can watch a console there
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=self._keys(),
            completer=_completer(commands, help),
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            history=_history(history, self._unkept.append),
            rprompt=lambda: "" if model().ready else "loading the model",
            enable_suspend=True,
        )
        self._session.app.after_render += lambda _app: self._model().start()

    def __call__(self, default: str = "") -> str:
        """Read one input, of one or several lines."""
        options: dict[str, Any] = {"default": default, "pre_run": self._look_at_the_model}
        if self._loop is None:
            typed = self._session.prompt(_PROMPT, **options)
        else:
            typed = self._unless_interrupted(self._loop, options)
        while self._unkept:
            console.note(f"[this line is not kept: {self._unkept.pop()}]")
        return _MARK.sub(lambda mark: self._pastes.get(mark.group(), mark.group()), typed)

    def _unless_interrupted(self, loop: asyncio.AbstractEventLoop, options: dict[str, Any]) -> str:
        """What was typed, unless Ctrl-C follows Enter before anybody else listens for it.

        The prompt needs some hundredths of a second to end. A Ctrl-C in that time is a key that nobody takes, or a
        signal once the terminal makes signals of it again; prompt_toolkit's own handler would hear that and forget it.
        """
        app = self._session.app
        behind = False

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            nonlocal behind
            if app.is_running and not app.is_done:
                loop.call_soon_threadsafe(app.key_processor.send_sigint)
            else:
                behind = True

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            prompt = self._session.prompt_async(_PROMPT, handle_sigint=False, **options)
            typed = loop.run_until_complete(prompt)
            if self._interrupt_typed() or behind:
                raise Interrupted
        finally:
            signal.signal(signal.SIGINT, before)
        return typed

    def _interrupt_typed(self) -> bool:
        """Whether Ctrl-C is among the keys that were typed behind Enter; the others wait for the next prompt."""
        from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
        from prompt_toolkit.keys import Keys

        source = self._session.app.input
        typed = get_typeahead(source)
        with source.raw_mode():
            typed += source.read_keys()
        store_typeahead(source, [one for one in typed if one.key != Keys.ControlC])
        return any(one.key == Keys.ControlC for one in typed)

    def wake(self) -> None:
        """From any thread: the model is ready, or has failed."""
        loop = self._session.app.loop
        if loop is not None:
            loop.call_soon_threadsafe(self._look_at_the_model)

    def _look_at_the_model(self) -> None:
        app = self._session.app
        error = self._model().error
        if error is not None and app.is_running and not app.is_done:
            app.exit(exception=error)
        app.invalidate()

    def _keys(self) -> Any:
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.keys import Keys

        keys = KeyBindings()

        @keys.add("enter")
        def _send(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def _new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        def _drop(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                event.app.exit(exception=KeyboardInterrupt)

        @keys.add(Keys.BracketedPaste)
        def _paste(event: KeyPressEvent) -> None:
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")
            if len(text) > _LARGE_PASTE:
                mark = f"[paste {len(self._pastes) + 1}: {len(text):,} characters]"
                self._pastes[mark] = text
                text = mark
            event.current_buffer.insert_text(text)

        return keys


def _history(file: Path | None, failed: Callable[[MedmindError], None]) -> "History":
    """Where lines are kept; `failed` is told when one cannot be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if file is None:
        return InMemoryHistory()
    kept = private_file.ensure(file)

    class Kept(FileHistory):
        def store_string(self, string: str) -> None:
            """Keep a line in the format that `load_history_strings` reads."""
            if _MARK.search(string):  # the mark of a paste says nothing in another session
                return
            lines = "".join(f"+{line}\n" for line in string.split("\n"))
            try:
                private_file.append(kept, f"\n# {datetime.now()}\n{lines}".encode("utf-8", "replace"))
            except MedmindError as error:
                failed(error)

    return Kept(str(kept))


def _completer(commands: Arguments, help: Mapping[str, str]) -> "Completer":
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    files = PathCompleter(expanduser=True)

    class Commands(Completer):
        """The name of a command, then what may follow it."""

        def get_completions(self, document: "Document", complete_event: "CompleteEvent") -> "Iterable[Completion]":
            typed = document.text_before_cursor
            if not typed.startswith("/") or "\n" in typed:
                return
            name, space, rest = typed.partition(" ")
            if not space:
                for word in sorted(commands):
                    if word.startswith(name):
                        yield Completion(word, -len(name), display_meta=help.get(word, ""))
                return
            words = commands.get(name, [])
            if words is None:
                yield from files.get_completions(Document(rest, len(rest)), complete_event)
            else:
                yield from (Completion(word, -len(rest)) for word in words if word.startswith(rest))

    return Commands()
