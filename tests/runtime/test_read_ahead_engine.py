"""Reading ahead with the engine itself: every answer stays what it is, to the bit. No clocks."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.engine import Engine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.interruption import never

from .conftest import write_k_quant
from .read_ahead_chat import chat, talk_of

BATCH = 16
SYSTEM_FIRST = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}\n{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    """Models whose template puts the system text last, and first; small batches, so that histories take several."""
    folder = tmp_path_factory.mktemp("bases")
    last = Engine.load(write_k_quant(folder / "last"), threads=1, batch=BATCH)
    first = Engine.load(write_k_quant(folder / "first", template=SYSTEM_FIRST), threads=1, batch=BATCH)
    with last, first:
        yield {"system last": last, "system first": first}


def ask(talk: Conversation, question: str) -> str:
    return "".join(talk.answer(talk.with_known(talk.fit(question))))


@pytest.mark.parametrize("base", ["system last", "system first"])
def test_the_next_turn_evaluates_its_own_question_alone(bases: dict[str, Engine], base: str) -> None:
    engine = bases[base]
    talk = talk_of(engine, system="be calm and say what is known", max_tokens=40)
    ask(talk, "what is it that ails her")
    without = talk.with_known(talk.fit("and then")).tokens
    held = engine._open.common(without)
    talk.read_ahead()
    prompt = talk.with_known(talk.fit("and then"))
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
    prompt = talk.with_known(talk.fit("and then what is to be done"))
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
