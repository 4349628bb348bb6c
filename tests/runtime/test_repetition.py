import random

import pytest

from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.repetition import LONGEST_PERIOD, Circle


@pytest.mark.parametrize("period", [1, 2, 7, 16, 17, 60, LONGEST_PERIOD])
def test_a_circle_is_noticed_after_three_rounds_and_48_tokens(period: int) -> None:
    lead = list(range(1000, 1100))
    circle = Circle()
    assert not any(map(circle.add, lead))
    rounds = list(range(period)) * (200 // period + 4)
    noticed = [circle.add(token) for token in rounds].index(True) + 1
    assert noticed == max(3 * period, 48)


def test_what_is_no_circle_passes() -> None:
    chance = random.Random(1)
    circle = Circle()
    said = [chance.randrange(30) for _ in range(3000)]
    listed = [token for number in range(300) for token in (1, 2, 3, 4, 5, 6, 1000 + number)]
    assert not any(map(circle.add, [*said, *listed]))


def test_an_answer_in_a_circle_ends_and_says_so() -> None:
    engine = FakeEngine(["It is a disease. " * 50, "It is not."])
    conversation = Conversation(engine, system="", sampling=Sampling(), max_tokens=512)
    text = "".join(conversation.answer(conversation.fit("what is it")))
    assert conversation.last is not None
    assert conversation.last.finish == "loop"
    assert 40 < len(text) < 70
    assert conversation.turns[-1].answer == text
    list(conversation.answer(conversation.fit("and then")))
    assert conversation.last.finish == "stop"
