"""Ctrl-C between Enter and the answer: it counts wherever it falls, and nobody waits for the guard. No clocks."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")

from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from medmind_runtime.background import Background
from medmind_runtime.config import ChatConfig
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.guard import Before, Unguarded
from medmind_runtime.interruption import Interrupted, never
from medmind_runtime.safety.careful import Careful
from medmind_runtime.safety.triage import Triage, lexicon_and_rules
from medmind_runtime.session import guard_for
from medmind_runtime.terminal import commands, line_input
from medmind_runtime.terminal.interactive import Opened, Terminal
from medmind_runtime.terminal.line_input import Editor
from medmind_runtime.turn import Turn

from .read_ahead_chat import chat, talk_of


def opened(guard: Unguarded) -> Background[Opened]:
    talk = Conversation(FakeEngine(["an answer"]), system="", sampling=Sampling(), max_tokens=9, guard=guard)
    opening = Background("load", lambda cancel: Opened(talk, "fake", "", {}, {}))
    opening.wait()
    return opening


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


@pytest.fixture
def editor(keys: PipeInput) -> Editor:
    opening = opened(Unguarded())
    return Editor(commands.ARGUMENTS, commands.COMMANDS, lambda: opening)


def test_ctrl_c_typed_right_behind_enter_takes_the_question_back_and_loses_no_other_key(
    editor: Editor, keys: PipeInput
) -> None:
    keys.send_text("one\r\x03two")
    with pytest.raises(Interrupted):
        editor()
    keys.send_text("\r")
    assert editor() == "two"


@pytest.mark.parametrize("how", ["key", "signal"])
def test_ctrl_c_while_the_prompt_ends_counts(
    editor: Editor, keys: PipeInput, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ending(*_: Any, **options: Any) -> str:
        await asyncio.sleep(0)
        if how == "key":
            keys.send_text("\x03")
        else:
            signal.raise_signal(signal.SIGINT)
        return "one"

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(editor._session, "prompt_async", ending)
    with pytest.raises(Interrupted):
        editor()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_at_the_prompt_is_ctrl_c_there(editor: Editor, keys: PipeInput) -> None:
    editor._session.app.after_render += lambda _app: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        editor()


def talk_to(guard: Unguarded, lines: Sequence[Callable[[], str]]) -> Terminal:
    left = iter(lines)

    def read(default: str = "") -> str:
        for one in left:
            return one()
        raise EOFError

    made = Background("guard", lambda cancel: guard)
    return Terminal(opened(guard), made, read, lambda terminal, line: None)


def test_a_question_taken_back_at_enter_is_not_asked_and_the_chat_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def taken_back() -> str:
        raise Interrupted

    terminal = talk_to(Unguarded(), [taken_back, lambda: "two"])
    terminal.run()
    assert [turn.question for turn in terminal.opened().conversation.turns] == ["two"]
    assert "the question was taken back" in "".join(capsys.readouterr())


def test_nobody_waits_for_a_guard_that_is_still_looking(capsys: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()

    class Slow(Unguarded):
        def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
            if question == "one":
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                ended.wait(60)
            return Before()

    def after_the_first() -> str:
        assert not ended.is_set()
        ended.set()
        return "two"

    terminal = talk_to(Slow(), [lambda: "one", after_the_first])
    terminal.run()
    assert [turn.question for turn in terminal.opened().conversation.turns] == ["two"]
    assert "the question was taken back" in "".join(capsys.readouterr())


def test_a_guard_that_nobody_waits_for_is_told() -> None:
    told = threading.Event()

    class Asks(Unguarded):
        def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            while not cancel():
                pass
            told.set()
            raise Interrupted

    def after_the_first() -> str:
        assert told.wait(60)
        return "/exit"

    talk_to(Asks(), [lambda: "one", after_the_first]).run()


def test_ctrl_c_while_a_long_question_is_fitted_takes_it_back_and_no_turn_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rendered: list[int] = []
    more = threading.Event()

    def encode(messages: Sequence[Mapping[str, str]]) -> list[int]:
        if "long" in messages[-1]["content"]:
            rendered.append(len(messages))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert more.wait(60)
            return [1] * 100
        return [1]

    def after_the_first() -> str:
        more.set()
        return "two"

    terminal = talk_to(Unguarded(), [lambda: "long", after_the_first])
    conversation = terminal.opened().conversation
    conversation.turns = [Turn("one", "fine"), Turn("another", "fine")]
    monkeypatch.setattr(conversation.engine, "context", 50)
    monkeypatch.setattr(conversation.engine, "encode", encode)
    terminal.run()
    assert rendered == [5]  # of three ways to make it fit the first: then nobody waited
    assert (conversation.first, [turn.question for turn in conversation.turns]) == (0, ["one", "another", "two"])
    assert "the question was taken back" in "".join(capsys.readouterr())


@pytest.mark.parametrize("line", ["long", "/regen"])
def test_turns_that_left_for_a_question_are_there_again_when_it_is_taken_back_before_its_first_word(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(["an answer"], context=100)
    generate = engine.generate

    def stopped(tokens: Sequence[int], *, cancel: Callable[[], bool] = never, **options: Any) -> Iterator[int]:
        signal.raise_signal(signal.SIGINT)
        return generate(tokens, cancel=cancel, **options)

    talk = talk_of(engine, max_tokens=9)
    talk.turns = [Turn("one", "fine"), Turn("another", "fine"), Turn("long" * 9, "fine")][: 2 + (line == "/regen")]
    before = list(talk.turns)

    def first() -> str:
        monkeypatch.setattr(engine, "generate", stopped)
        return line.replace("long", "long" * 9)

    def second() -> str:
        monkeypatch.setattr(engine, "generate", generate)
        assert (talk.turns, talk.first) == (before, 0)
        return "/exit"

    chat(talk, [first, second], read_ahead=False)
    said = "".join(capsys.readouterr())
    assert "left it and will not be remembered" in said
    assert "the question was taken back" in said


@pytest.mark.parametrize("judged", [0, 1, 7])
def test_a_long_text_is_judged_no_further_once_nobody_waits(judged: int) -> None:
    texts: list[str] = []

    def classify(text: str) -> tuple[float, ...]:
        texts.append(text)
        return 0.0, 0.0, -9.0, -9.0  # harmless: of self-harm it would be asked twice

    text = " ".join(f"My chest hurts and I have felt ill for {days} days." for days in range(400))
    with pytest.raises(Interrupted):
        Triage(*lexicon_and_rules(), classify).alarms(text, lambda: len(texts) == judged)
    assert len(texts) == judged


def test_nothing_is_looked_up_once_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is asked last: what is cancelled before that never asks it."""
    looks: list[int] = []

    def cancel() -> bool:
        looks.append(1)
        return len(looks) > 1  # the one window of the question is judged

    guard = Careful()
    monkeypatch.setattr(guard, "_library", object())  # which has nothing that could be asked
    with pytest.raises(Interrupted):
        guard.before("What is asthma?", (), cancel)


def test_the_guard_is_warm_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[Careful] = []

    def warm(guard: Careful) -> None:
        warmed.append(guard)

    monkeypatch.setattr(Careful, "warm", warm)
    assert guard_for(ChatConfig()).wait() is warmed[0]


def test_the_loop_of_the_prompt_is_made_whole(monkeypatch: pytest.MonkeyPatch, keys: PipeInput) -> None:
    def make() -> None:
        signal.raise_signal(signal.SIGINT)
        whole.append(True)

    whole: list[bool] = []
    monkeypatch.setattr(line_input, "_SocketlessLoop", make)
    with pytest.raises(KeyboardInterrupt):
        Editor(commands.ARGUMENTS, commands.COMMANDS, lambda: opened(Unguarded()))
    assert whole
