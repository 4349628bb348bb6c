import random
from collections.abc import Callable

import pytest

from medmind.errors import MedmindError
from medmind_runtime.conversation import Conversation, Turn
from medmind_runtime.decoder import never
from medmind_runtime.fake_engine import FakeEngine
from medmind_runtime.sampling import Sampling


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


def test_undo_and_clear() -> None:
    conversation = talk(FakeEngine(["one", "two"]))
    assert conversation.undo() is None
    ask(conversation, "a")
    ask(conversation, "b")
    assert conversation.undo() == Turn("b", "two")
    assert conversation.turns == [Turn("a", "one")]
    conversation.clear()
    assert conversation.turns == []


def test_random_conversations_never_overflow_and_never_drop_silently() -> None:
    chance = random.Random(11)
    for _ in range(120):
        context = chance.randint(40, 300)
        engine = FakeEngine(["w" * chance.randint(0, 60), "né" * chance.randint(1, 40)], context=context)
        conversation = talk(engine, system="s" * chance.randint(0, 10), max_tokens=chance.randint(1, 80))
        told = 0
        for _ in range(chance.randint(1, 12)):
            if chance.random() < 0.1:
                conversation.undo()
                told = min(told, len(conversation.turns))
            try:
                prompt = conversation.fit("q" * chance.randint(1, 80))
            except MedmindError:
                assert conversation.first == told
                continue
            told += prompt.dropped
            list(conversation.answer(prompt, cancel=after(chance.randint(0, 100))))
            assert conversation.first == told
            assert len(prompt.tokens) <= context
            present = engine.prompts[-1].count("<user>")
            kept = len(conversation.turns) - conversation.first
            assert present in {kept, kept + 1}
