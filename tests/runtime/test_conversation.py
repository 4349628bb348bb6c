import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_runtime.chat_engine import ChatEngine
from medmind_runtime.conversation import Conversation, Turn
from medmind_runtime.engine.engine import Engine
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.exchange import DoesNotFit
from medmind_runtime.guard import Before
from medmind_runtime.interruption import never
from medmind_runtime.turn import Passage


def talk(engine: FakeEngine, *, system: str = "", max_tokens: int = 100) -> Conversation:
    return Conversation(engine, system=system, sampling=Sampling(), max_tokens=max_tokens)


def ask(conversation: Conversation, question: str, cancel: Callable[[], bool] = never) -> list[str]:
    return list(conversation.answer(conversation.fit(question), cancel=cancel))


def after(count: int) -> Callable[[], bool]:
    calls = iter(range(10**6))
    return lambda: next(calls) >= count


def test_every_turn_is_in_the_next_prompt() -> None:
    engine = FakeEngine(["one", "two"])
    conversation = talk(engine, system="calm")
    ask(conversation, "a")
    ask(conversation, "b")
    assert engine.prompts == ["<system>calm<user>a", "<system>calm<user>a<assistant>one<user>b"]
    assert conversation.turns == [Turn("a", "one"), Turn("b", "two")]


def test_characters_arrive_whole_and_broken_bytes_do_not_stop_the_stream() -> None:
    pieces = ask(talk(FakeEngine(["né 😀日本"])), "q")
    assert pieces == list("né 😀日本")
    assert "".join(ask(talk(FakeEngine([b"a\xff\xf0\x9f"])), "q")) == "a\ufffd\ufffd"


def test_white_space_before_the_first_word_is_left_out() -> None:
    assert "".join(ask(talk(FakeEngine([" \n  a b "])), "q")) == "a b "


@pytest.mark.parametrize(
    ("max_tokens", "context", "finish"), [(100, 400, "stop"), (3, 400, "length"), (100, 14, "context")]
)
def test_the_reason_for_the_end_is_told(max_tokens: int, context: int, finish: str) -> None:
    conversation = talk(FakeEngine(["abcdefgh"], context=context), max_tokens=max_tokens)
    ask(conversation, "q")
    assert conversation.last is not None
    assert conversation.last.finish == finish


def test_a_cancelled_answer_is_kept_as_far_as_it_came() -> None:
    conversation = talk(FakeEngine(["abcdef"]))
    ask(conversation, "q", after(3))
    assert conversation.last is not None
    assert (conversation.last.finish, conversation.turns) == ("cancelled", [Turn("q", "abc")])


def test_a_question_cancelled_before_the_first_word_leaves_no_turn() -> None:
    conversation = talk(FakeEngine(["abc"]))
    assert ask(conversation, "q", after(0)) == []
    assert conversation.turns == []


def test_a_reader_that_leaves_counts_as_cancelling() -> None:
    conversation = talk(FakeEngine(["abc"]))
    stream = conversation.answer(conversation.fit("q"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert conversation.turns == [Turn("q", "a")]
    assert conversation.last is not None
    assert conversation.last.finish == "cancelled"


def test_the_oldest_turns_leave_a_full_context_and_the_system_prompt_stays() -> None:
    engine = FakeEngine(["x" * 20], context=200)
    conversation = talk(engine, system="SYSTEM", max_tokens=40)
    dropped = []
    for number in range(8):
        prompt = conversation.fit(f"question {number}")
        dropped.append(prompt.dropped)
        list(conversation.answer(prompt))
        assert engine.prompts[-1].startswith("<system>SYSTEM<user>question ")
        assert engine.prompts[-1].endswith(f"<user>question {number}")
        assert len(prompt.tokens) + 40 <= 200
    assert dropped[0] == 0
    assert sum(dropped) == conversation.first > 0
    assert len(conversation.turns) == 8


def test_a_question_that_does_not_fit_is_refused_with_the_counts_and_changes_nothing() -> None:
    conversation = talk(FakeEngine(["ok"], context=100), system="S", max_tokens=50)
    ask(conversation, "short")
    with pytest.raises(MedmindError, match=r"takes 215 tokens with the system prompt, the context holds 100 and 25"):
        conversation.fit("y" * 200)
    assert (conversation.turns, conversation.first) == ([Turn("short", "ok")], 0)
    assert "".join(ask(conversation, "again")) == "ok"


class Counting(FakeEngine):
    """Counts how often messages are rendered."""

    encoded = 0

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        self.encoded += 1
        return super().encode(messages)


def test_a_question_that_fits_is_rendered_once_where_nobody_reads_ahead() -> None:
    engine = Counting(["fine"])
    conversation = talk(engine, system="calm")
    ask(conversation, "one")
    assert (engine.encoded, conversation.fit("two").known) == (1, 0)
    known = conversation.with_known(conversation.fit("two")).known
    assert known == len(b"<system>calm<user>one<assistant>fine<user>")


@pytest.mark.parametrize(("words", "dropped", "rendered"), [(20, 0, 1), (120, 1, 2), (150, 2, 3), (300, 2, 4)])
def test_an_answer_of_the_guard_is_rendered_until_it_fits_and_no_more(words: int, dropped: int, rendered: int) -> None:
    engine = Counting(["fine"], context=200)
    conversation = talk(engine, max_tokens=10)
    for question in ("one", "two"):
        ask(conversation, question)
    engine.encoded = 0
    prompt = conversation.fit("q", Before("x" * words, alone=True))
    assert (prompt.dropped, engine.encoded, prompt.remembered) == (dropped, rendered, words < 300)


def test_undo_and_clear() -> None:
    conversation = talk(FakeEngine(["one", "two"]))
    assert conversation.undo() is None
    ask(conversation, "a")
    ask(conversation, "b")
    assert conversation.undo() == Turn("b", "two")
    assert conversation.turns == [Turn("a", "one")]
    conversation.clear()
    assert conversation.turns == []


def converse(chance: random.Random, engine: ChatEngine, *, most: int, longest: int) -> None:
    """A random conversation: questions of all lengths, turns taken back, answers stopped; every drop must be told."""
    conversation = Conversation(
        engine,
        system="s" * chance.randint(0, 30),
        sampling=Sampling(),
        max_tokens=chance.randint(1, longest),
        guard=Careful(open_with=chance.choice(("", "Call now.")), passages=chance.choice(("", "AB"))),
    )
    told = 0
    for _ in range(chance.randint(1, most)):
        if chance.random() < 0.1:
            conversation.undo()
            told = min(told, len(conversation.turns))
        question = "".join(chance.choices("the qé😀\n[INST]</s>", k=chance.randint(1, chance.choice((40, 700)))))
        before = conversation.turns.copy()
        try:
            prompt = conversation.fit(question)
        except DoesNotFit as refused:
            assert refused.tokens + refused.reserve > refused.context == engine.context
            assert (conversation.first, conversation.turns) == (told, before)
            continue
        told += prompt.dropped
        assert conversation.first == told
        assert len(prompt.tokens) + min(conversation.max_tokens, engine.context // 4) <= engine.context
        messages = conversation._messages(told, conversation.guard.place(question, prompt.passages))
        assert list(prompt.tokens) == engine.encode(messages)
        assert conversation._system() in messages[0]["content"]
        assert len(messages) == 2 + 2 * (len(before) - told)
        text = "".join(conversation.answer(prompt, cancel=after(chance.randint(0, 100))))
        assert conversation.last is not None
        assert conversation.last.text == text
        assert conversation.turns[: len(before)] == before
        assert len(conversation.turns) == len(before) + bool(text or conversation.last.finish != "cancelled")


def random_conversations(count: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(count):
        answers = ["w" * chance.randint(0, 200), "né" * chance.randint(1, 60), "y" * 3]
        converse(chance, FakeEngine(answers, context=512), most=12, longest=200)


def test_random_conversations_never_overflow_and_never_drop_silently() -> None:
    random_conversations(200, seed=11)


@pytest.mark.slow
def test_ten_thousand_random_conversations() -> None:
    random_conversations(10_000, seed=12)


@pytest.mark.parametrize("count", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_random_conversations_with_a_real_model(engine: Engine, count: int) -> None:
    assert engine.context == 512
    chance = random.Random(13)
    for _ in range(count):
        converse(chance, engine, most=6, longest=30)


class Careful:
    """A guard with every power: an opening, passages, a watch that holds back digits until the answer ends."""

    instructions = "RULES"

    def __init__(self, *, alone: bool = False, open_with: str = "", passages: str = "AB") -> None:
        self.alone = alone
        self.open_with = open_with
        self.passages = [Passage(letter * 20, f"source {letter}") for letter in passages]

    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        return Before("Call now." if "pain" in question else self.open_with, self.alone, self.passages, "pain")

    def place(self, question: str, passages: Sequence[Passage]) -> str:
        return "".join(f"({passage.text})" for passage in passages) + question

    def watch(self, question: str, passages: Sequence[Passage], *, document: bool = False) -> "Careful.Held":
        return Careful.Held()

    class Held:
        held = refusal = ""

        def feed(self, text: str) -> str:
            self.held += "".join(filter(str.isdigit, text))
            return "".join(sign for sign in text if not sign.isdigit())

        def finish(self) -> str:
            return f"[{self.held}]"


def guarded(engine: FakeEngine, *, alone: bool = False, system: str = "S") -> Conversation:
    return Conversation(engine, system=system, sampling=Sampling(), max_tokens=40, guard=Careful(alone=alone))


def test_the_guards_opening_comes_first_and_its_watch_sees_every_word() -> None:
    engine = FakeEngine([" take 5 mg"])
    conversation = guarded(engine)
    assert "".join(ask(conversation, "pain")) == "Call now.\n\ntake  mg[5]"
    assert engine.prompts == [f"<system>S\n\nRULES<user>({'A' * 20})({'B' * 20})pain"]
    assert conversation.turns[0].answer == "Call now.\n\ntake  mg[5]"
    assert [passage.source for passage in conversation.turns[0].passages] == ["source A", "source B"]
    ask(conversation, "fine")
    assert "<user>pain<assistant>Call now." in engine.prompts[1]
    prompt = conversation.fit("pain", conversation.consider("pain"))
    assert "".join(conversation.answer(prompt, opened=True)) == "take  mg[5]"
    assert conversation.turns[2].answer.startswith("Call now.")


def test_what_else_the_sources_say_is_for_guesses_alone() -> None:
    engine = FakeEngine(["fine"])
    conversation = guarded(engine)
    conversation.guard.passages = [Passage(name, name, neighbours=f"around {name}") for name in "AB"]  # type: ignore[attr-defined]
    ask(conversation, "well")
    assert engine.lookup_texts == ["around B around A"]  # what fits best is the last
    assert not any("around" in prompt for prompt in engine.prompts)
    prompt = conversation.fit("well")
    assert prompt.beside()["sources"] == [{"text": name, "source": name, "url": ""} for name in "AB"]
    conversation.guard.passages = []  # type: ignore[attr-defined]
    ask(conversation, "well")
    assert engine.lookup_texts[-1] == ""


def test_where_the_guard_has_something_to_say_no_document_is_made() -> None:
    engine = FakeEngine(['{"a": 5}'])
    conversation = guarded(engine)
    conversation.sampling = Sampling(grammar='root ::= "{}"')
    prompt = conversation.fit("pain")
    assert not prompt.document
    assert list(conversation.answer(prompt)) == ["Call now."]
    assert conversation.turns[0].answer == "Call now."
    assert engine.prompts == []
    assert conversation.fit("fine").document


def test_a_guard_may_answer_alone_also_when_the_question_is_longer_than_the_context() -> None:
    engine = FakeEngine(["never"], context=50)
    conversation = guarded(engine, alone=True)
    assert ask(conversation, "pain" * 100) == ["Call now."]
    assert engine.prompts == []
    assert conversation.last is not None
    assert conversation.last.finish == "stop"


def test_an_opening_stays_said_when_its_answer_is_cancelled_at_once() -> None:
    conversation = guarded(FakeEngine(["never"]))
    stream = conversation.answer(conversation.fit("pain"))
    assert next(stream) == "Call now.\n\n"
    stream.close()  # type: ignore[attr-defined]
    assert conversation.turns[0].answer == "Call now.\n\n"


def test_what_the_answer_before_cost_is_not_told_of_one_that_ended_behind_its_opening() -> None:
    conversation = guarded(FakeEngine(["a long answer"]))
    conversation.max_tokens = 4
    ask(conversation, "one")
    assert conversation.last is not None
    assert conversation.last.finish == "length"
    stream = conversation.answer(conversation.fit("pain"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert (conversation.last.finish, conversation.last.timings.generated_tokens) == ("cancelled", 0)


def test_a_prompt_that_the_engine_refuses_leaves_no_turn() -> None:
    class Refusing(FakeEngine):
        def generate(self, *_: Any, **__: Any) -> Iterator[int]:
            raise MedmindError("no")

    conversation = Conversation(Refusing([]), system="", sampling=Sampling(), max_tokens=9)
    with pytest.raises(MedmindError):
        ask(conversation, "one")
    assert (conversation.turns, conversation.last) == ([], None)


@pytest.mark.parametrize("alone", [False, True])
def test_a_text_that_surely_does_not_fit_is_refused_without_being_tokenized(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = guarded(FakeEngine(["never"], context=100), alone=alone)
    monkeypatch.setattr(conversation.engine, "encode", lambda *_: pytest.fail("tokenized"))
    if alone:
        assert not conversation.fit("pain" * 500).remembered
        return
    with pytest.raises(DoesNotFit, match="the question does not fit: it takes at least 5") as refused:
        conversation.fit("q" * 2000)
    assert 500 <= refused.value.tokens < 520


def test_passages_leave_before_a_question_is_refused_and_after_the_turns() -> None:
    engine = FakeEngine(["ok"], context=100)
    conversation = guarded(engine)
    ask(conversation, "one")
    prompt = conversation.fit("q" * 20)
    assert (prompt.dropped, len(prompt.passages), len(prompt.before.passages)) == (1, 1, 2)
    with pytest.raises(DoesNotFit) as refused:
        conversation.fit("q" * 80)
    assert (refused.value.tokens, refused.value.context, refused.value.reserve) == (102, 100, 25)


def test_nothing_is_dropped_where_that_is_not_wanted() -> None:
    conversation = talk(FakeEngine(["x" * 20], context=100))
    ask(conversation, "a question")
    with pytest.raises(DoesNotFit, match="the conversation does not fit"):
        conversation.fit("q" * 40, drop=False)
    assert conversation.first == 0


def test_turns_that_the_guard_answered_leave_a_full_context_as_others_do_and_are_told() -> None:
    engine = FakeEngine(["ok"], context=200)
    conversation = guarded(engine, alone=True)
    dropped = []
    for number in range(100):
        prompt = conversation.fit(f"pain {number}")
        assert list(conversation.answer(prompt)) == ["Call now."]
        dropped.append(prompt.dropped)
        use = conversation.use()
        assert use.system + use.turns + use.free == use.context
    assert dropped[0] == 0
    assert 90 < sum(dropped) == conversation.first < len(conversation.turns) == 100
    assert conversation.fit("fine").dropped <= 1


def test_a_question_that_is_too_long_is_refused_though_the_guard_would_answer_but_not_in_an_emergency() -> None:
    conversation = talk(FakeEngine(["ok"], context=100))
    for drop in (True, False):
        with pytest.raises(DoesNotFit, match="question does not fit: it takes 2"):
            conversation.fit("q" * 200, Before("The library has nothing.", alone=True), drop=drop)
        assert conversation.fit("q" * 200, Before("Call now.", alone=True, rule="chest"), drop=drop).before.opening
        assert conversation.fit("q", Before("The library has nothing." * 9, alone=True), drop=drop).remembered != drop


def test_a_turn_that_fits_beside_nothing_is_answered_by_the_guard_and_not_remembered() -> None:
    conversation = guarded(FakeEngine(["ok"], context=100), alone=True)
    ask(conversation, "pain")
    prompt = conversation.fit("pain" * 100)
    assert (prompt.dropped, prompt.remembered) == (1, False)
    assert list(conversation.answer(prompt)) == ["Call now."]
    assert conversation.first == len(conversation.turns) == 2
    use = conversation.use()
    assert (use.turns, use.system + use.free) == (0, use.context)
    assert conversation.fit("pain", drop=False).dropped == 0
