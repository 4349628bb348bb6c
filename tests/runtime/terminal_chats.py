"""Chats in a pseudo-terminal: with a fake engine that says what it is given, and the real one."""

import sys
from collections.abc import Sequence
from pathlib import Path

import forked

from medmind_runtime.cli import main

from .conftest import CHAT
from .terminal_session import TerminalSession

FAKE = """
import sys, time
from medmind import console
from medmind.errors import MedmindError
from medmind_runtime.terminal import commands, line_input
from medmind_runtime.background import Background
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.guard import Before, Unguarded
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.terminal.interactive import Opened, Terminal
from medmind_runtime.turn import Passage
answers, context, delay, load, guarded = eval(sys.argv[1])
class Guard(Unguarded):
    def before(self, question, earlier, cancel):
        if "pain" in question:
            return Before("Call for help NOW.", passages=[Passage("the text", "a leaflet", "https://example.org")])
        return Before()
engine = FakeEngine(answers, context=context, delay=delay)
guard = Guard() if guarded else Unguarded()
talk = Conversation(engine, system="calm", sampling=Sampling(), max_tokens=1000, guard=guard)
def make(cancel):
    until = time.monotonic() + abs(load)
    while time.monotonic() < until and not cancel():
        time.sleep(0.01)
    if load < 0:
        raise MedmindError("no such luck")
    return Opened(talk, "fake", "calm", {}, {"threads": "none"}, ["a note on the model"])
opening = Background("load", make, lambda: editor.wake())
editor = line_input.Editor(commands.ARGUMENTS, commands.COMMANDS, lambda: opening)
terminal = Terminal(
    opening, Background("guard", lambda cancel: guard), editor, commands.Commands(lambda name, opened: opening)
)
def run():
    try:
        terminal.run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        opening.close()
        print("PROMPTS", engine.prompts, [s.temperature for s in engine.samplings], len(talk.turns))
class App:
    __call__ = staticmethod(run)
console.run(App())
"""


def fake(
    tmp_path: Path,
    answers: list[str],
    *,
    context: int = 4000,
    delay: float = 0.0,
    load: float = 0.0,
    guarded: bool = False,
    **env: str,
) -> TerminalSession:
    """A chat with a fake engine that takes `load` seconds to load; negative: and then fails."""
    options = repr((answers, context, delay, load, guarded))
    if forked.available and not env:

        def start() -> None:
            sys.argv = ["-c", options]
            exec(FAKE, {})

        return TerminalSession(start, tmp_path)
    return TerminalSession([sys.executable, "-c", FAKE, options], tmp_path, **env)


def real(model: Path, tmp_path: Path, *prefix: str, tokens: int = 12, options: Sequence[str] = ()) -> TerminalSession:
    home = dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"), str(tmp_path))
    arguments = [str(model), "--max-tokens", str(tokens), "--threads", "1", *options]
    if forked.available and not prefix:

        def start() -> None:
            sys.argv = ["medmind-chat", *arguments]
            main()

        return TerminalSession(start, tmp_path, **home)
    return TerminalSession([*prefix, *CHAT, *arguments], tmp_path, **home)
