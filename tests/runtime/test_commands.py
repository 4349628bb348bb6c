"""The commands of the chat, given names that no file can have and an output that has ended."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmind import console
from medmind.errors import MedmindError
from medmind_runtime import saved
from medmind_runtime.background import Background
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.guard import Unguarded
from medmind_runtime.models import find
from medmind_runtime.terminal.commands import Commands
from medmind_runtime.terminal.interactive import Opened, Terminal

from .read_ahead_chat import talk_of


def load(name: str, _before: Opened) -> Background[Opened]:
    find(name)
    raise AssertionError(name)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.chdir(tmp_path)
    talk = talk_of(FakeEngine(["yes"]))
    memory: Any = object()
    opened = Opened(talk, "a model", talk.system, {}, {}, close=lambda: None, memory=memory)
    opening = Background("load", lambda _cancel: opened)
    opening.start()
    terminal = Terminal(opening, Background("guard", lambda _cancel: Unguarded()), lambda _="": "", Commands(load))
    yield terminal
    terminal.close()


@pytest.mark.parametrize("command", ["/save", "/save!", "/load"])
@pytest.mark.parametrize("name", ["\0x", "~\0x", "talk\0.json", "half \ud83d.json"])
def test_a_name_that_no_file_can_have_is_refused_in_one_line(
    terminal: Terminal, tmp_path: Path, command: str, name: str
) -> None:
    with pytest.raises(MedmindError, match="no file's name may have — give another name") as refused:
        Commands(load)(terminal, f"{command} {name}")
    assert str(refused.value).isprintable()
    assert not list(tmp_path.iterdir())


def test_what_the_system_says_of_a_name_does_not_end_the_conversation(terminal: Terminal) -> None:
    long = "x" * 300
    for line, says in (
        (f"/save {long}", "File name too long — give another file"),
        (f"/load {long}", "File name too long — give a file that /save wrote"),
        (f"/model {long}", "File name too long — give another model"),
        ("/model \0x", "there is no model"),
    ):
        with pytest.raises(MedmindError, match=says):
            Commands(load)(terminal, line)


@pytest.mark.parametrize("leads", ["circle", "nowhere"])
def test_a_symbolic_link_to_no_file_is_not_replaced_unasked(terminal: Terminal, tmp_path: Path, leads: str) -> None:
    link = tmp_path / "circle"
    link.symlink_to(leads)
    with pytest.raises(MedmindError, match="circle exists already — give another name, or replace it: /save! circle"):
        Commands(load)(terminal, "/save circle")
    assert link.is_symlink()
    Commands(load)(terminal, "/save! circle")
    assert not link.is_symlink()


def test_a_conversation_is_loaded_whose_name_leaves_no_room_for_that_of_a_state(terminal: Terminal) -> None:
    name = "x" * 250
    Commands(load)(terminal, f"/save {name}")
    Commands(load)(terminal, f"/load {name}")


def test_what_became_of_another_model_is_told_at_once(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    def another(name: str, before: Opened) -> Background[Opened]:
        return Background("load", lambda _cancel: replace(before, name=name, notes=["a note on it"]))

    Commands(another)(terminal, "/model b")
    assert terminal.opening.ready
    assert "a note on it" in "".join(capsys.readouterr())


def test_a_system_prompt_that_leaves_no_room_is_refused_at_once_and_nothing_is_changed(terminal: Terminal) -> None:
    talk = terminal.opened().conversation
    commands = Commands(load)
    commands(terminal, "/system be calm")
    list(talk.answer(talk.fit("q")))
    long = Path("long.json")
    saved.write(long, model="m", system="x" * 5000, turns=[])
    says = (
        "the system prompt does not fit: it takes 5015 tokens, the context holds 4096 and 12 of them are kept for the"
    )
    for line in (f"/system {'x' * 5000}", f"/load {long}"):
        with pytest.raises(MedmindError, match=f"{says} answer — shorten it, or start with a larger --context"):
            commands(terminal, line)
        assert (talk.system, [turn.question for turn in talk.turns]) == ("be calm", ["q"])
    assert talk.last is not None
    commands(terminal, "/system -")
    assert (talk.system, talk.turns) == ("", [])


def test_an_output_that_has_ended_is_not_said_to_be_a_wrong_file(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_text: str) -> None:
        raise BrokenPipeError

    terminal.opened()
    monkeypatch.setattr(console, "note", gone)
    for line in ("/system", "/save talk.json", "/model"):
        with pytest.raises(BrokenPipeError):
            Commands(load)(terminal, line)
