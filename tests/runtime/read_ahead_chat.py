"""A terminal session in which given lines are typed, for the tests of reading ahead."""

from collections.abc import Callable, Sequence
from typing import Any

from medmind_runtime.background import Background
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.guard import Unguarded
from medmind_runtime.terminal import commands
from medmind_runtime.terminal.interactive import Opened, Terminal


def chat(
    talk: Conversation,
    lines: Sequence[str | Callable[[], str]],
    *,
    read_ahead: bool = True,
    close: Callable[[], None] = lambda: None,
) -> None:
    """A terminal session in which these lines are typed."""
    left = iter(lines)

    def read(default: str = "") -> str:
        for one in left:
            return one if isinstance(one, str) else one()
        raise EOFError

    memory: Any = None if isinstance(talk.engine, FakeEngine) else talk.engine
    opened = Opened(talk, "a model", talk.system, {}, {}, close=close, memory=memory)
    opening = Background("load", lambda _cancel: opened)
    opening.wait()
    terminal = Terminal(
        opening, Background("guard", lambda _cancel: talk.guard), read, commands.Commands(lambda *_: opening)
    )
    terminal.read_ahead = read_ahead
    try:
        terminal.run()
    finally:
        terminal.close()


def talk_of(engine: Any, *, system: str = "calm", guard: Unguarded | None = None, max_tokens: int = 12) -> Conversation:
    return Conversation(engine, system=system, sampling=Sampling(), max_tokens=max_tokens, guard=guard)
