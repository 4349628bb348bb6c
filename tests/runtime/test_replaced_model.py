"""Another model in the place of one, in the middle of a conversation: all of it goes on, or the old one stays."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medmind_runtime.background import Background
from medmind_runtime.config import ChatConfig
from medmind_runtime.guard import Guard, Unguarded
from medmind_runtime.interruption import never
from medmind_runtime.session import _replaced, open_model
from medmind_runtime.turn import Turn

CONFIG = ChatConfig(threads=1)


@pytest.fixture
def guard() -> Background[Guard]:
    return Background("guard", lambda _cancel: Unguarded())


def test_a_model_whose_context_cannot_hold_the_system_prompt_is_refused_and_the_old_one_stays(
    model: Path, make_model: Callable[..., Path], guard: Background[Guard]
) -> None:
    before = open_model(model, CONFIG, guard)
    system = "the tin " * 90
    before.conversation.begin_anew(system)
    before.conversation.turns.append(Turn("q", "a"))
    now = _replaced(before, make_model(context=256), CONFIG, guard, never)
    try:
        assert now.name == str(model)
        assert now.notes[0].startswith("error: the system prompt does not fit: it takes ")
        assert "the context holds 256 and 64 of them are kept for the answer" in now.notes[0]
        assert now.notes[1:] == [f"The model is {model} as before."]
        assert (now.conversation.system, now.conversation.turns) == (system, [Turn("q", "a")])
        assert now.conversation.fit("and then?").tokens
    finally:
        now.close()


def test_a_model_that_can_hold_it_goes_on_with_it(
    model: Path, make_model: Callable[..., Path], guard: Background[Guard]
) -> None:
    before = open_model(model, CONFIG, guard)
    before.conversation.begin_anew("be brief")
    before.conversation.turns.append(Turn("q", "a"))
    other = make_model(context=256)
    now = _replaced(before, other, CONFIG, guard, never)
    try:
        assert now.name == str(other)
        assert (now.conversation.system, now.conversation.turns) == ("be brief", [Turn("q", "a")])
    finally:
        now.close()
