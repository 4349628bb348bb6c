"""Reading ahead: when it is done, that it ends before anything else, that every answer stays what it is. No clocks."""

import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from medmind import llama
from medmind.errors import MedmindError
from medmind_runtime import commands, ctrl_c, session
from medmind_runtime.background import Background
from medmind_runtime.config import ChatConfig
from medmind_runtime.conversation import Conversation
from medmind_runtime.ctrl_c import CtrlC
from medmind_runtime.engine import Engine
from medmind_runtime.fake_engine import FakeEngine
from medmind_runtime.guard import Before, Guard, Unguarded
from medmind_runtime.interruption import never
from medmind_runtime.sampling import Sampling
from medmind_runtime.terminal import Opened, Terminal
from medmind_runtime.turn import Turn

from .conftest import write_model

BATCH = 16
SYSTEM_FIRST = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}\n{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)


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
    opening = Background(lambda _cancel: Opened(talk, "a model", talk.system, {}, {}, close=close, memory=memory))
    opening.wait()
    terminal = Terminal(opening, Background(lambda _cancel: talk.guard), read, commands.Commands(lambda *_: opening))
    terminal.read_ahead = read_ahead
    try:
        terminal.run()
    finally:
        terminal.close()


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


def talk_of(engine: Any, *, system: str = "calm", guard: Unguarded | None = None, max_tokens: int = 12) -> Conversation:
    return Conversation(engine, system=system, sampling=Sampling(), max_tokens=max_tokens, guard=guard)


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
    monkeypatch.setattr(session, "guard_for", lambda _config: Background(lambda _cancel: Unguarded()))
    session.interactive(Path("a.gguf"), ChatConfig())
    assert engine.evaluated == ["<system>calm<user>", "<system>calm<user>one<assistant>fine<user>"]
    assert engine.events == ["begin", "end", "answer", "begin", "end"]


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


def k_quant(folder: Path, **options: Any) -> Path:
    """A model in q4_k_m: the kernels of K quants take rows by fours, so that its bits tell how tokens came together."""
    lib = llama.load()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = lib.LLAMA_FTYPE_MOSTLY_Q4_K_M, 1
    folder.mkdir()
    plain, quantized = write_model(folder / "plain.gguf", width=256, head=64, **options), folder / "q4_k_m.gguf"
    assert lib.llama_model_quantize(bytes(plain), bytes(quantized), params) == 0
    return quantized


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    """Models whose template puts the system text last, and first; small batches, so that histories take several."""
    folder = tmp_path_factory.mktemp("bases")
    last = Engine.load(k_quant(folder / "last"), threads=1, batch=BATCH)
    first = Engine.load(k_quant(folder / "first", template=SYSTEM_FIRST), threads=1, batch=BATCH)
    with last, first:
        yield {"system last": last, "system first": first}


def ask(talk: Conversation, question: str) -> str:
    return "".join(talk.answer(talk.fit(question, read_ahead=True)))


@pytest.mark.parametrize("base", ["system last", "system first"])
def test_the_next_turn_evaluates_its_own_question_alone(bases: dict[str, Engine], base: str) -> None:
    engine = bases[base]
    talk = talk_of(engine, system="be calm and say what is known", max_tokens=40)
    ask(talk, "what is it that ails her")
    without = talk.fit("and then", read_ahead=True).tokens
    held = engine._open.common(without)
    talk.read_ahead()
    prompt = talk.fit("and then", read_ahead=True)
    own = len(prompt.tokens) - prompt.known
    assert own <= len(engine.tokenize(" and then[/INST]assistant\n", special=False))
    ask(talk, "and then")
    assert engine.timings.prompt_tokens - engine.timings.reused == own
    assert len(without) - held > 40 + own  # else there was nothing to read


def after(count: int) -> Callable[[], bool]:
    left = iter(range(count))
    return lambda: next(left, None) is None


class Asked:
    """A `cancel` that says yes from a moment on, and counts how often it was asked."""

    def __init__(self, moment: int) -> None:
        self.times, self._moment = 0, moment

    def __call__(self) -> bool:
        self.times += 1
        return self.times > self._moment


NEVER = 10**9


def second_answer(engine: Engine, *cancels: Asked) -> tuple[list[int], list[bytes]]:
    """Tokens that lay in the cache after each reading ahead; the logits behind every token of the answer after them."""
    engine._open.keep_prefix([])
    talk = talk_of(engine, system="be calm and say what is known", max_tokens=68)
    ask(talk, "what is it that ails her")
    held = []
    for cancel in cancels:
        talk.read_ahead(cancel)
        held.append(len(engine._open.state()[0]))
    prompt = talk.fit("and then what is to be done", read_ahead=True)
    answer = engine.generate(prompt.tokens, sampling=Sampling(), max_tokens=6, known=prompt.known)
    return held, [engine._open.logits(-1) for _ in answer]


def test_interrupted_anywhere_every_logit_of_the_answer_is_the_same_to_the_bit(bases: dict[str, Engine]) -> None:
    """In every batch, at its ends and amid its graph, once and twice; also where nothing is read at all."""
    engine = bases["system last"]
    whole = Asked(NEVER)
    (all_of_it,), expected = second_answer(engine, whole)
    assert second_answer(engine) == ([], expected)
    reached: dict[int, int] = {}
    for moment in range(0, whole.times, 7):
        (held,), rows = second_answer(engine, Asked(moment))
        assert rows == expected, moment
        reached[held] = reached.get(held, 0) + 1
        assert second_answer(engine, Asked(moment), Asked(whole.times // 4))[1] == expected, moment
    batches = -(-(all_of_it - min(reached)) // BATCH)
    assert batches > 4 and len(reached) == batches  # 0, 1, 2, … of them are there; never all
    assert min(reached.values()) > 2  # some of the interruptions of each came amid its graph


def test_what_is_there_already_stays_and_all_behind_it_too(bases: dict[str, Engine]) -> None:
    engine = bases["system last"]
    talk = talk_of(engine, system="be calm")
    prompt = talk.fit("what is it")
    ask(talk, "what is it")
    talk.undo()
    talk.read_ahead()
    assert engine._open.common(prompt.tokens) == len(prompt.tokens)
    engine.evaluate(prompt.tokens)
    assert engine._open.common(prompt.tokens) == len(prompt.tokens)


COMMANDS = (
    "/undo",
    "/edit",
    "/regen",
    "/new",
    "/system be brief",
    "/set max-tokens 7",
    "/context",
    "/save! t.json --state",
)


def random_lines(chance: random.Random) -> list[str]:
    lines: list[str] = []
    for _ in range(chance.randint(2, 7)):
        if chance.random() < 0.4:
            lines.append(chance.choice((*COMMANDS, *["/load t.json"] * ("/save! t.json --state" in lines))))
        else:
            lines.append("".join(chance.choices("the qé\n[INST]</s>", k=chance.randint(1, 40))).strip() or "why")
        if lines[-1] == "/edit":
            lines.append("the other")
    return lines


class Noted:
    """An engine that is interrupted at random moments when it reads ahead, and whose logits are noted."""

    def __init__(self, engine: Engine, seed: float, *, read_ahead: bool) -> None:
        self._engine = engine
        self._moments = random.Random(seed)
        self._read_ahead = read_ahead
        self.rows: list[tuple[int, bytes]] = []
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def evaluate(self, tokens: Sequence[int], *, cancel: Callable[[], bool]) -> None:
        before = self._engine._open.common(tokens)
        stop = after(self._moments.randint(0, 300))
        self._engine.evaluate(tokens, cancel=stop if self._read_ahead and cancel is not never else cancel)
        self.read += max(0, self._engine._open.common(tokens) - before)

    def generate(self, tokens: Sequence[int], **options: Any) -> Iterator[int]:
        for token in self._engine.generate(tokens, **options):
            self.rows.append((token, self._engine._open.logits(-1)))
            yield token


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("base", ["system last", "system first"])
def test_random_conversations_get_the_same_answers_with_and_without(
    bases: dict[str, Engine], base: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind every token of every answer the logits are the same to the bit, wherever reading ahead is interrupted."""
    monkeypatch.chdir(tmp_path)
    chance = random.Random(5)
    read = 0
    for _ in range(count):
        lines, seed = random_lines(chance), chance.random()
        seen = []
        for read_ahead in (True, False):
            bases[base]._open.keep_prefix([])
            engine = Noted(bases[base], seed, read_ahead=read_ahead)
            talk = talk_of(engine, system="be calm and say what is known")
            talk.sampling = Sampling(seed=1)
            chat(talk, lines, read_ahead=read_ahead)
            seen.append((engine.rows, talk.turns))
            read += engine.read * (1 if read_ahead else -1)
        assert seen[0] == seen[1], lines
    assert read > 100
