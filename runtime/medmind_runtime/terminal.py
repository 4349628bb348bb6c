"""The interactive chat: reads, streams answers, obeys /commands, and lets Ctrl-C stop an answer and not the program.

Knows the conversation and the terminal. Knows no model file and no engine beyond the conversation's.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from rich.table import Table

from medmind import console
from medmind.errors import MedmindError
from medmind_runtime.conversation import Conversation, Prompt
from medmind_runtime.line_input import Read
from medmind_runtime.sampling import Sampling

REGENERATION_TEMPERATURE = 0.7
"""At temperature 0 the same question gets the same answer, so another one has to be drawn."""
COMMANDS = {
    "/help": "this list",
    "/new": "forget the conversation and begin anew",
    "/undo": "take back the last question and its answer",
    "/regen": "answer the last question again",
    "/system": "show the system prompt, or set it: /system TEXT; /system - for none",
    "/stats": "tokens and times of the last answer",
    "/info": "model, memory and settings",
    "/exit": "leave (also Ctrl-D, or Ctrl-C twice)",
}
_ENDINGS = {
    "length": "[cut at {limit} tokens; --max-tokens allows more]",
    "context": "[cut: the context is full; /new begins anew]",
    "cancelled": "[stopped]",
    "loop": "[stopped: the answer went round in a circle; ask otherwise, or try a higher --temperature]",
    "stop": "",
}


def printable(text: str) -> str:
    """Without control characters but line ends and tabs: a model's words must not steer the terminal."""
    return "".join(sign for sign in text if sign in "\n\t" or not (ord(sign) < 32 or 127 <= ord(sign) < 160))


class Terminal:
    """An interactive session.

    Args:
        conversation: whom to ask.
        read: where lines come from.
        info: what /info shows.
    """

    def __init__(self, conversation: Conversation, read: Read, info: Mapping[str, str]) -> None:
        self._conversation = conversation
        self._read = read
        self._info = info
        self._stopped = False

    def run(self) -> None:
        """Until /exit or the end of input; raises KeyboardInterrupt at the second Ctrl-C in a row at the prompt."""
        warned = False
        while True:
            try:
                line = self._read().strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                if warned:
                    raise
                warned = True
                console.note("Ctrl-C once more leaves, as do Ctrl-D and /exit.")
                continue
            warned = False
            if line.startswith("/") and line.split()[0] in {"/exit", "/quit", "/bye"}:
                return
            try:
                if line.startswith("/"):
                    self._obey(line)
                elif line:
                    self._ask(line)
            except MedmindError as error:
                console.note(f"error: {error}")
            except KeyboardInterrupt:
                console.note("[stopped]")

    def _ask(self, question: str, *, again: bool = False) -> None:
        sampling = self._conversation.sampling
        if again and sampling.temperature == 0:
            sampling = replace(sampling, temperature=REGENERATION_TEMPERATURE)
        with self._stoppable():
            prompt = self._conversation.fit(question)
            if prompt.dropped:
                turns = "question and its answer have"
                if prompt.dropped > 1:
                    turns = f"{prompt.dropped} questions and their answers have"
                console.note(f"[the context is full: the oldest {turns} left it and will not be remembered]")
            self._stream(prompt, lambda: self._stopped, sampling)
        reply = self._conversation.last
        assert reply is not None
        if reply.finish == "cancelled" and not reply.text:
            console.note("[stopped before the first word; the question was taken back]")
        elif ending := _ENDINGS[reply.finish].format(limit=self._conversation.max_tokens):
            console.note(ending)

    def _stream(self, prompt: Prompt, cancel: Callable[[], bool], sampling: Sampling) -> None:
        for text in self._conversation.answer(prompt, cancel=cancel, sampling=sampling):
            sys.stdout.write(printable(text))
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """While inside, Ctrl-C only asks the answer to stop."""
        self._stopped = False

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopped = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            with _unechoed():
                yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _obey(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        actions: dict[str, Callable[[str], None]] = {
            "/help": lambda _: self._table(COMMANDS),
            "/new": self._new,
            "/undo": self._undo,
            "/regen": self._regenerate,
            "/system": self._system,
            "/stats": self._stats,
            "/info": lambda _: self._table(self._info),
        }
        action = actions.get(name)
        if action is None:
            raise MedmindError(f"there is no command {name}", "/help lists them; begin with a space to ask about it")
        action(rest.strip())

    def _new(self, _: str) -> None:
        self._conversation.clear()
        console.note("A new conversation.")

    def _undo(self, _: str) -> None:
        turn = self._conversation.undo()
        console.note("There is nothing to take back." if turn is None else f"Taken back: {printable(turn.question)}")

    def _regenerate(self, _: str) -> None:
        turn = self._conversation.undo()
        if turn is None:
            raise MedmindError("there is no question to answer again")
        kept = len(self._conversation.turns)
        try:
            self._ask(turn.question, again=True)
        finally:
            if len(self._conversation.turns) == kept:
                self._conversation.turns.append(turn)

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = "" if text == "-" else text
            self._conversation.clear()
            console.note("System prompt set; a new conversation.")
        else:
            console.note(printable(self._conversation.system) or "There is no system prompt.")

    def _stats(self, _: str) -> None:
        reply = self._conversation.last
        if reply is None:
            raise MedmindError("there is no answer yet")
        spent = reply.timings
        used = spent.prompt_tokens + spent.generated_tokens
        first = "" if reply.first_seconds is None else f"{reply.first_seconds:.3f} s"
        self._table(
            {
                "prompt": f"{spent.prompt_tokens} tokens, {spent.reused} of them remembered from before",
                "prompt speed": f"{spent.prompt_rate:.1f} tokens/s",
                "first text after": first,
                "answer": f"{spent.generated_tokens} tokens, {spent.generation_rate:.1f} tokens/s",
                "ended by": reply.finish,
                "context": f"{used} of {self._conversation.engine.context} tokens",
            }
        )

    @staticmethod
    def _table(rows: Mapping[str, str]) -> None:
        table = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            table.add_row(name, printable(value))
        console.out.print(table)


@contextmanager
def _unechoed() -> Iterator[None]:
    """While inside, keys typed ahead wait for the next prompt: not shown within the answer, not lost at Ctrl-C."""
    if sys.platform == "win32":
        yield
        return
    import termios

    try:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):  # standard input is no terminal
        yield
        return
    quiet = termios.tcgetattr(terminal)
    quiet[3] = (quiet[3] & ~termios.ECHO) | termios.NOFLSH
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
