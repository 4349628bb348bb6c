"""Reading ahead: when it is done, and that it ends before anything else; with an engine that only tells. No clocks."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_runtime import session
from medmind_runtime.background import Background
from medmind_runtime.config import ChatConfig
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.guard import Before, Guard, Unguarded
from medmind_runtime.interruption import never
from medmind_runtime.terminal import ctrl_c
from medmind_runtime.terminal.ctrl_c import CtrlC
from medmind_runtime.terminal.interactive import Opened
from medmind_runtime.turn import Turn

from .read_ahead_chat import chat, talk_of


class Scripted(FakeEngine):
    """Evaluates ahead until it is told to stop, and writes down what happens in which order."""

    def __init__(self, answers: Sequence[str], **options: Any) -> None:
        super().__init__(answers, **options)
        self.events: list[str] = []
        self.reading = threading.Event()

    def evaluate(self, tokens: Sequence[int], *, cancel: Callable[[], bool] = never) -> None:
        self.events.append("begin")
        self.reading.set()
        super().evaluate(tokens)
        while not cancel():
            threading.Event().wait(0.001)
        self.events.append("end")

    def generate(self, tokens: Sequence[int], **options: Any) -> Iterator[int]:
        self.events.append("answer")
        return super().generate(tokens, **options)

    def line(self, text: str) -> Callable[[], str]:
        """Typed when reading ahead has begun."""

        def typed() -> str:
            assert self.reading.wait(60)
            self.reading.clear()
            if text == "\x03":
                raise KeyboardInterrupt
            return text

        return typed


class Alone(Unguarded):
    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        return Before("Call for help NOW.", alone="pain" in question)


def test_it_has_ended_before_a_question_a_command_and_the_end() -> None:
    engine = Scripted(["fine"])
    chat(talk_of(engine), [engine.line(text) for text in ("one", "two", "/undo", "\x03", "/regen", "/exit")])
    between = ["begin", "end"]
    asked = [*between, "answer"]
    assert engine.events == [*asked, *asked, *between, *between, *asked, *between]
    history = "<system>calm<user>one<assistant>fine<user>"
    assert engine.evaluated == [
        "<system>calm<user>",
        history,
        history.replace("fine<", "fine<user>two<assistant>fine<"),
        history,
        history,
        history,
    ]


def test_it_ends_also_where_ctrl_c_comes_in_its_last_moment(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C behind Enter takes the question back, as everywhere."""
    engine = Scripted(["fine"])
    ended = engine.evaluate

    def evaluate(tokens: Sequence[int], *, cancel: Callable[[], bool] = never) -> None:
        def asked() -> bool:
            if not (stop := cancel()):
                return False
            if len(engine.evaluated) == 1:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return stop

        ended(tokens, cancel=asked)

    engine.evaluate = evaluate  # type: ignore[method-assign]
    chat(talk_of(engine), [engine.line("one"), engine.line("two"), engine.line("/exit")])
    assert engine.events == ["begin", "end", "begin", "end", "answer", "begin", "end"]
    assert "the question was taken back" in "".join(capsys.readouterr())


def test_no_ctrl_c_frees_the_model_or_goes_on_while_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a second one, which leaves an answer that does not stop."""
    monkeypatch.setattr(ctrl_c, "_PATIENCE", -1.0)
    engine = Scripted(["fine"])
    closed = threading.Event()
    ended = engine.evaluate

    def close() -> None:
        engine.events.append("closed")
        closed.set()

    def evaluate(tokens: Sequence[int], *, cancel: Callable[[], bool] = never) -> None:
        def asked() -> bool:
            if not cancel():
                return False
            for _ in () if closed.is_set() else range(3):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                closed.wait(0.1)  # whoever does not wait has the time to go on
            return True

        ended(tokens, cancel=asked)

    engine.evaluate = evaluate  # type: ignore[method-assign]
    with suppress(KeyboardInterrupt):
        chat(talk_of(engine), [engine.line("one"), engine.line("/exit")], close=close)
    assert engine.events == [*["begin", "end"] * 3, "closed"]


def test_ctrl_c_before_the_end_is_waited_for_lets_nothing_run_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted(["fine"])
    asks, pressed = CtrlC.asks, []

    def pressed_before(self: CtrlC, *, leaves: bool = True) -> Any:
        if engine.events == ["begin"] and not pressed:
            pressed.append("\x03")
            raise KeyboardInterrupt
        return asks(self, leaves=leaves)

    monkeypatch.setattr(CtrlC, "asks", pressed_before)
    chat(talk_of(engine), [engine.line("one"), engine.line("two"), engine.line("/exit")])
    assert engine.events == [*["begin", "end"] * 2, "answer", "begin", "end"]


def test_what_the_first_prompt_begins_with_is_read_as_soon_as_the_model_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Scripted(["fine"])
    lines = iter([engine.line("one"), engine.line("/exit")])

    class Typing:
        """Begins to load the model at its first prompt, as the editor does."""

        def __init__(self, _commands: object, _help: object, model: Callable[[], Background[Opened]], **_: Any) -> None:
            self._model = model

        def wake(self) -> None:
            pass

        def __call__(self, default: str = "") -> str:
            self._model().start()
            return next(lines)()

    def open_model(_path: Path, _config: ChatConfig, guard: Background[Guard], _cancel: object) -> Opened:
        return Opened(talk_of(engine), "a model", "calm", {}, {})

    monkeypatch.setattr(session.line_input, "is_interactive", lambda: True)
    monkeypatch.setattr(session.line_input, "Editor", Typing)
    monkeypatch.setattr(session, "open_model", open_model)
    monkeypatch.setattr(session, "guard_for", lambda _config: Background("guard", lambda _cancel: Unguarded()))
    session.interactive(Path("a.gguf"), ChatConfig())
    assert engine.evaluated == ["<system>calm<user>", "<system>calm<user>one<assistant>fine<user>"]
    assert engine.events == ["begin", "end", "answer", "begin", "end"]


def test_it_begins_only_when_a_question_that_was_taken_back_is_fitted_no_more() -> None:
    """And the prompt waits for neither."""
    engine = Scripted(["fine"])
    plain, more, beside = engine.encode, threading.Event(), threading.Event()
    fitted: list[str] = []

    def encode(messages: Sequence[Mapping[str, str]]) -> list[int]:
        if fitted and not more.is_set():
            beside.set()
        elif messages[-1]["content"] == "long":
            fitted.append(threading.current_thread().name)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert more.wait(60)
        return plain(messages)

    def after_the_first() -> str:
        assert not beside.wait(0.1)  # whoever does not wait has the time to go on
        more.set()
        return engine.line("two")()

    engine.encode = encode  # type: ignore[method-assign]
    chat(talk_of(engine), [engine.line("long"), after_the_first, "/exit"])
    assert fitted == ["fit"]
    assert engine.events[:5] == ["begin", "end", "begin", "end", "answer"]


def test_what_goes_wrong_ends_no_chat_and_is_told_when_it_goes_wrong_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(FakeEngine):
        broken = True

        def evaluate(self, tokens: Sequence[int], *, cancel: Callable[[], bool] = never) -> None:
            raise MedmindError("the memory is gone")

        def generate(self, tokens: Sequence[int], **options: Any) -> Iterator[int]:
            if self.broken:
                raise MedmindError("the memory is gone")
            return super().generate(tokens, **options)

    engine = Broken(["fine"])

    def mended() -> str:
        engine.broken = False
        return "two"

    conversation = talk_of(engine)
    chat(conversation, ["one", mended])
    assert [turn.question for turn in conversation.turns][-1] == "two"
    assert "".join(capsys.readouterr()).count("error: the memory is gone") == 1


def test_nothing_is_read_where_the_guard_answered_alone_or_turns_have_to_leave() -> None:
    engine = FakeEngine(["fine"], context=100)
    chat(talk_of(engine, guard=Alone()), ["pain", "/context"])
    assert engine.evaluated == ["<system>calm<user>"]
    engine = FakeEngine(["fine"], context=100)
    chat(talk_of(engine), ["x" * 50, "/context"])
    assert engine.evaluated == ["<system>calm<user>"]
