"""The /commands of the interactive chat: their names, what completes them, and what they do.

Knows the terminal session that it commands and its conversation. Knows no engine.
"""

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from medmind import console
from medmind.errors import MedmindError
from medmind_runtime import saved
from medmind_runtime.background import Background
from medmind_runtime.conversation import Conversation, Turn
from medmind_runtime.terminal import chat_settings, file_names
from medmind_runtime.terminal.display import printable
from medmind_runtime.terminal.interactive import REGENERATION_TEMPERATURE, Opened, Terminal
from medmind_runtime.terminal.line_input import Arguments

COMMANDS = {
    "/help": "this list",
    "/new": "forget the conversation and begin anew",
    "/undo": "take back the last question and its answer",
    "/regen": "answer the last question again; temperature 0, which would repeat the answer, counts as "
    f"{REGENERATION_TEMPERATURE} here",
    "/edit": "change the last question and ask it instead",
    "/system": "show the system prompt, or set it: /system TEXT; /system - for none",
    "/set": "show the settings, or change one: /set temperature 0.7",
    "/context": "what fills the context",
    "/stats": "tokens and times of the last answer",
    "/info": "model, memory and settings",
    "/sources": "the passages that the last answer was given",
    "/save": "write the conversation to a file that only you can read: /save [FILE]; with --state also what the model "
    "computed of it, so that /load goes on at once; a file with another conversation is not replaced",
    "/save!": "the same, and replace the file if it is there: /save! FILE",
    "/load": "go on with a saved conversation: /load FILE",
    "/model": "show the model, or go on with another: /model FILE or RUN",
    "/exit": "leave (also Ctrl-D, or Ctrl-C twice)",
}
ARGUMENTS: Arguments = {
    **{name: [] for name in COMMANDS},
    "/set": [f"{name} " for name in chat_settings.NAMES],
    "/system": ["-"],
    "/save": None,
    "/save!": None,
    "/load": None,
    "/model": None,
}
"""What completes a command."""


class Commands:
    """Carries out commands.

    Args:
        load: (name of a model, the conversation so far) → that model loading; raises when there is none of that name.
    """

    def __init__(self, load: Callable[[str, Opened], Background[Opened]]) -> None:
        self._load = load
        self._saved: dict[str, list[Turn]] = {}  # by their real paths; Path.resolve refuses links that go in a circle
        self._actions: Mapping[str, Callable[[Terminal, str], None]] = {
            "/help": lambda _terminal, _rest: _table(COMMANDS),
            "/new": self._new,
            "/undo": self._undo,
            "/regen": self._regenerate,
            "/edit": self._edit,
            "/system": self._system,
            "/set": self._set,
            "/context": self._context,
            "/stats": self._stats,
            "/info": self._info,
            "/sources": self._sources,
            "/save": self._save,
            "/save!": lambda terminal, rest: self._save(terminal, rest, replace=True),
            "/load": self._read,
            "/model": self._model,
        }

    def __call__(self, terminal: Terminal, line: str) -> None:
        """Carry out one line.

        Raises:
            MedmindError: there is no such command, or it cannot be done.
        """
        name, _, rest = line.partition(" ")
        action = self._actions.get(name)
        if action is None:
            raise MedmindError(f"there is no command {name}", "/help lists them; begin with a space to ask about it")
        action(terminal, rest.strip())

    @staticmethod
    def _new(terminal: Terminal, _: str) -> None:
        terminal.opened().conversation.clear()
        console.note("A new conversation.")

    @staticmethod
    def _undo(terminal: Terminal, _: str) -> None:
        turn = terminal.opened().conversation.undo()
        console.note("There is nothing to take back." if turn is None else f"Taken back: {printable(turn.question)}")

    @staticmethod
    def _regenerate(terminal: Terminal, _: str) -> None:
        turn = _last(terminal.opened().conversation)
        terminal.ask_instead(turn, turn.question, again=True)

    @staticmethod
    def _edit(terminal: Terminal, _: str) -> None:
        turn = _last(terminal.opened().conversation)
        try:
            question = terminal.read(turn.question).strip()
        except (KeyboardInterrupt, EOFError):
            question = ""
        if not question:
            console.note("Nothing is changed.")
            return
        terminal.ask_instead(turn, question)

    @staticmethod
    def _system(terminal: Terminal, text: str) -> None:
        conversation = terminal.opened().conversation
        if text:
            conversation.begin_anew("" if text == "-" else text)
            console.note("System prompt set; a new conversation.")
        else:
            console.note(printable(conversation.system) or "There is no system prompt.")

    @staticmethod
    def _set(terminal: Terminal, rest: str) -> None:
        conversation = terminal.opened().conversation
        if not rest:
            _table(chat_settings.shown(terminal, conversation))
            return
        name, _, value = rest.partition(" ")
        if name not in chat_settings.NAMES:
            raise MedmindError(f"there is no setting {name}", f"there are {', '.join(chat_settings.NAMES)}")
        if not value.strip():
            console.note(f"{name}: {chat_settings.shown(terminal, conversation)[name]}")
            return
        chat_settings.change(terminal, conversation, name, value.strip().lower())
        console.note(f"{name} is {chat_settings.shown(terminal, conversation)[name]} from now on.")

    @staticmethod
    def _context(terminal: Terminal, _: str) -> None:
        use = terminal.opened().conversation.use()
        conversation = terminal.opened().conversation
        kept = len(conversation.turns) - conversation.first
        rows = {
            "system prompt and frame": f"{use.system} tokens",
            "conversation": f"{use.turns} tokens in {kept} question{'s' * (kept != 1)} with their answers",
            "free": f"{use.free} tokens, {use.reserve} of them kept for the answer",
            "in all": f"{use.context} tokens",
        }
        if conversation.first:
            rows["has left"] = f"{conversation.first} of {len(conversation.turns)} questions with their answers"
        _table(rows)

    @staticmethod
    def _stats(terminal: Terminal, _: str) -> None:
        conversation = terminal.opened().conversation
        reply = conversation.last
        if reply is None:
            raise MedmindError("there is no answer yet")
        spent = reply.timings
        used = spent.prompt_tokens + spent.generated_tokens
        first = "" if reply.first_seconds is None else f"{reply.first_seconds:.3f} s"
        _table(
            {
                "prompt": f"{spent.prompt_tokens} tokens, {spent.reused} of them remembered from before",
                "prompt speed": f"{spent.prompt_rate:.1f} tokens/s",
                "first text after": first,
                "answer": f"{spent.generated_tokens} tokens, {spent.generation_rate:.1f} tokens/s",
                "guessed": f"{spent.drafted} tokens from the text at hand, {spent.accepted} of them rightly",
                "ended by": reply.finish,
                "context": f"{used} of {conversation.engine.context} tokens",
            }
        )

    @staticmethod
    def _info(terminal: Terminal, _: str) -> None:
        opened = terminal.opened()
        _table(
            {
                "model": opened.name,
                **opened.metadata,
                **opened.info,
                **chat_settings.shown(terminal, opened.conversation),
            }
        )

    @staticmethod
    def _sources(terminal: Terminal, _: str) -> None:
        passages = _last(terminal.opened().conversation).passages
        if not passages:
            console.note("The last answer was given no sources.")
            return
        for number, passage in enumerate(passages, 1):
            console.note(printable(f"[{number}] {passage.source} {passage.url}".rstrip()))
            console.note(printable(passage.text) + "\n")

    def _save(self, terminal: Terminal, rest: str, *, replace: bool = False) -> None:
        opened = terminal.opened()
        rest, with_state = _flag(rest, "--state")
        path = file_names.named(rest) if rest else Path(datetime.now().strftime("conversation-%Y%m%d-%H%M%S.json"))
        state = file_names.state_beside(path)
        conversation = opened.conversation
        before = self._saved.get(os.path.realpath(path))
        goes_on = before is not None and conversation.turns[: len(before)] == before
        for file in (path, state) if with_state else (path,):
            if file_names.is_there(file) and not (goes_on or replace):
                raise MedmindError(f"{file} exists already", f"give another name, or replace it: /save! {path}")
        again = " again, with what was said since" if goes_on and file_names.is_there(path) else ""
        saved.write(path, model=opened.name, system=conversation.system, turns=conversation.turns)
        self._saved[os.path.realpath(path)] = list(conversation.turns)
        console.note(f"Saved to {path}{again}; only you can read it (0600).")
        if with_state and opened.memory is not None:
            conversation.read_ahead()
            tokens = opened.memory.save_state(state)
            size = console.human_bytes(state.stat().st_size)
            console.note(f"What the model computed of {tokens} tokens lies beside it in {state} ({size}, 0600).")

    def _read(self, terminal: Terminal, rest: str) -> None:
        if not rest:
            raise MedmindError("the name of the file is missing", "give it as in: /load FILE")
        path = file_names.named(rest)
        system, turns = saved.read(path)
        opened = terminal.opened()
        conversation = opened.conversation
        conversation.begin_anew(system)
        conversation.turns.extend(turns)
        if opened.memory is not None:
            try:
                if file_names.is_there(state := file_names.state_beside(path)):
                    opened.memory.load_state(state)
            except MedmindError as error:  # it only saves time
                console.note(f"[the conversation will be read anew: {error}]")
        self._saved[os.path.realpath(path)] = turns
        console.note(f"Loaded {len(turns)} question{'s' * (len(turns) != 1)} with answers from {path}.")
        if turns:
            console.note(f"The last was: {printable(turns[-1].question)}")

    def _model(self, terminal: Terminal, rest: str) -> None:
        opened = terminal.opened()
        if not rest:
            console.note(opened.name)
            return
        try:
            terminal.opening = self._load(rest, opened)
        except OSError as error:
            raise MedmindError(f"{rest}: {error.strerror}", "give another model") from error
        terminal.opened()  # or why it cannot be had, while it is still before the eyes what was asked for


def _flag(words: str, flag: str) -> tuple[str, bool]:
    """The words without a flag at their beginning or end, and whether it was there."""
    before, _, last = words.rpartition(" ")
    first, _, behind = words.partition(" ")
    rest = before if last == flag else behind if first == flag else words
    return rest.strip(), flag in (first, last)


def _last(conversation: Conversation) -> Turn:
    if not conversation.turns:
        raise MedmindError("there is no question to go back to")
    return conversation.turns[-1]


def _table(rows: Mapping[str, str]) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, printable(value))
    console.out.print(table)
