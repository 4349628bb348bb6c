"""The interactive chat: reads, streams answers, and carries on where an answer was stopped.

Knows the conversation and the terminal. Knows no model file and no engine beyond the conversation's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from medmind import console
from medmind.errors import MedmindError
from medmind_runtime import read_ahead
from medmind_runtime.background import Background
from medmind_runtime.conversation import Conversation, Turn
from medmind_runtime.ending import ending, taken_back
from medmind_runtime.exchange import Prompt
from medmind_runtime.guard import Before, Guard
from medmind_runtime.interruption import Interrupted
from medmind_runtime.terminal import display
from medmind_runtime.terminal.ctrl_c import CtrlC, Leave
from medmind_runtime.terminal.line_input import Read

T = TypeVar("T")
REGENERATION_TEMPERATURE = 0.7
"""At temperature 0 the same question gets the same answer, so another one has to be drawn."""
_SLOW_LOAD = 0.2
"""Seconds of waiting for the model from which it is said what is waited for."""
_TAKEN_BACK = "[stopped; the question was taken back]"
_LEAVE = frozenset({"/exit", "/quit", "/bye"})


class Remembers(Protocol):
    """What has been evaluated, to a file and back; see `medmind_runtime.engine.engine.Engine`."""

    def save_state(self, path: Path) -> int:
        """Write it; returns its tokens."""
        ...

    def load_state(self, path: Path) -> int:
        """Take it up; returns its tokens."""
        ...


@dataclass
class Opened:
    """A model that can be talked to.

    Attributes:
        conversation: with its engine.
        name: the model, for people.
        system: its own system prompt.
        metadata: what the model file says of itself.
        info: what /info shows, beside the metadata.
        notes: what a person should know of it before the first answer.
        close: frees it.
        memory: keeps what was evaluated; None where that cannot be.
    """

    conversation: Conversation
    name: str
    system: str
    metadata: Mapping[str, str]
    info: Mapping[str, str]
    notes: Sequence[str] = ()
    close: Callable[[], None] = lambda: None
    memory: Remembers | None = None


class Terminal:
    """An interactive session.

    Args:
        opening: the model, maybe still loading.
        guard: of the conversation, maybe still made ready; asked before the model is there.
        read: where lines come from.
        obey: carries out a line that begins with `/`.

    Attributes:
        opening: as given; /model puts another in its place.
        read: as given.
        markdown: whether answers are drawn as Markdown where the terminal can.
        read_ahead: whether to compute while a line is typed.
    """

    def __init__(
        self,
        opening: Background[Opened],
        guard: Background[Guard],
        read: Read,
        obey: Callable[["Terminal", str], None],
    ) -> None:
        self.opening = opening
        self.read = read
        self.markdown = True
        self.read_ahead = True
        self._guard = guard
        self._obey = obey
        self._told: Background[Opened] | None = None
        self._ahead: Background[None] = Background("nothing", lambda _cancel: None)
        self._fitting: Background[Prompt] | None = None
        self._ctrl_c = CtrlC()

    def run(self) -> None:
        """Until /exit or the end of input.

        Raises:
            KeyboardInterrupt: at the second Ctrl-C in a row, the first of which may have stopped an answer.
            MedmindError: the model cannot be loaded.
        """
        warned = False
        while True:
            if self.opening.error is not None:
                raise self.opening.error
            try:
                line = self._line().rstrip()
                if line.startswith("/") and line.split()[0] in _LEAVE:
                    return
            except EOFError:
                return
            except Interrupted:
                console.note(_TAKEN_BACK)
                continue
            except KeyboardInterrupt:
                if warned:
                    raise
                warned = True
                console.note("Ctrl-C once more leaves, as do Ctrl-D and /exit.")
                continue
            self._carry_out(line)
            warned = self._ctrl_c.pressed  # what stopped the answer was the first

    def _line(self) -> str:
        """The next line. What is computed while it is typed has ended when this returns or raises."""
        self._settle()  # Ctrl-C may have come before the last one could
        self._ahead = read_ahead.ready_to_begin(self.opening, after=self._end_fitting, compute=self.read_ahead)
        try:
            if self.opening.ready:
                self._ahead.start()
            line = self.read()
        finally:
            self._settle()
        if self._ctrl_c.pressed:
            raise Interrupted
        return line

    def wake(self) -> None:
        """From any thread: the model is there, and may be used while a line is typed."""
        self._ahead.start()

    def _settle(self) -> None:
        """End what is computed behind the prompt. However often Ctrl-C is pressed: it uses the model until its end."""
        with self._ctrl_c.asks(leaves=False):
            self._ahead.close()

    def close(self) -> None:
        """Free the model, also one that is still loading, once nothing uses it any more."""
        self._settle()
        with self._ctrl_c.asks(leaves=False):
            self._end_fitting()
        opened = self.opening.close()
        if opened is not None:
            opened.close()

    def _carry_out(self, line: str) -> None:
        try:
            self._end_fitting()
            if line.startswith("/"):
                self._obey(self, line)
            elif line := line.strip():  # a space before "/" makes it a question
                self.ask(line)
        except MedmindError as error:
            if error is self.opening.error:
                raise
            console.note(f"error: {error}")
        except Interrupted:
            console.note(_TAKEN_BACK if self.opening.ready else "[stopped before the model was there]")
        except Leave:
            raise
        except KeyboardInterrupt:  # in the moment before an answer begins
            console.note(_TAKEN_BACK)

    def opened(self) -> Opened:
        """The model, waited for; Ctrl-C ends the waiting.

        Raises:
            Interrupted: by Ctrl-C.
            MedmindError: it cannot be loaded.
        """
        with self._ctrl_c.asks():
            return self._wait()

    def _wait(self) -> Opened:
        begun = time.monotonic()
        said = False

        def cancel() -> bool:
            nonlocal said
            if not said and time.monotonic() - begun > _SLOW_LOAD:
                said = True
                console.note("[the model is still loading]")
            return self._ctrl_c.pressed

        opened = self.opening.wait(cancel)
        if self._told is not self.opening:
            self._told = self.opening
            for note in opened.notes:
                console.note(note)
        return opened

    def ask(self, question: str, *, again: bool = False) -> None:
        """Answer a question; with `again` otherwise than before, also where temperature 0 would repeat it.

        What the guard says first is shown before the model is there, and also when the question does not fit.
        """
        with self._ctrl_c.asks():
            turns = self.opening.wait().conversation.turns if self.opening.ready else ()
            guard = self._guard.wait(lambda: self._ctrl_c.pressed)
            before = self._apart(Background("judge", lambda cancel: guard.before(question, turns, cancel)))
            shown = display.of_answers(markdown=self.markdown)
            if before.opening:
                shown.feed(before.opening + "\n\n")
                shown.settle()
            try:
                conversation = self._wait().conversation
                first = conversation.first
                prompt = self._fit(conversation, question, before)
                self._stream(conversation, prompt, shown, again=again)
            finally:
                shown.finish()
            if taken_back(conversation):
                conversation.first = first
        if line := ending(conversation):
            console.note(line)

    def _end_fitting(self) -> None:
        """What was taken back may use the model's vocabulary for a moment still. From any thread."""
        if self._fitting is not None:
            self._fitting.close()

    def _apart(self, work: Background[T]) -> T:
        """What is made of a question in a thread of its own: of a long text that takes longer than Ctrl-C may.

        Raises:
            Interrupted: by Ctrl-C; the work ends soon and leaves nothing.
        """
        try:
            return work.wait(lambda: self._ctrl_c.pressed)
        finally:
            work.give_up()

    def _fit(self, conversation: Conversation, question: str, before: Before) -> Prompt:
        fitting = Background(
            "fit",
            lambda cancel: conversation.with_known(conversation.fitted(question, before, cancel=cancel)),
        )
        self._fitting = fitting
        prompt = self._apart(fitting)
        conversation.take(prompt)
        if prompt.dropped:
            turns = "question and its answer have"
            if prompt.dropped > 1:
                turns = f"{prompt.dropped} questions and their answers have"
            console.note(f"[the context is full: the oldest {turns} left it and will not be remembered]")
        if not prompt.remembered:
            console.note("[this question and its answer do not fit the context and will not be remembered]")
        if missing := len(before.passages) - len(prompt.passages):
            sources = f"{missing} of {len(before.passages)} sources"
            console.note(f"[{sources} that were found did not fit the context; a larger --context holds more]")
        return prompt

    def _stream(self, conversation: Conversation, prompt: Prompt, shown: display.Display, *, again: bool) -> None:
        sampling = conversation.sampling
        if again and sampling.temperature == 0:
            sampling = replace(sampling, temperature=REGENERATION_TEMPERATURE)
        for text in conversation.answer(prompt, cancel=lambda: self._ctrl_c.pressed, sampling=sampling, opened=True):
            shown.feed(text)

    def ask_instead(self, turn: Turn, question: str, *, again: bool = False) -> None:
        """Put a question in place of the last turn, which comes back when there is no answer to the new one."""
        conversation = self.opened().conversation
        conversation.undo()
        kept = len(conversation.turns)
        try:
            self.ask(question, again=again)
        finally:
            if len(conversation.turns) == kept:
                conversation.turns.append(turn)
