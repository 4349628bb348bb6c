from medmind_runtime.conversation import Conversation, Turn
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.safety.careful import Careful


def test_what_the_guard_has_heard_is_not_said_again_and_what_a_file_brings_is_heard() -> None:
    chest = "crushing chest pain, my left arm is numb, and I cannot breathe"
    conversation = Conversation(FakeEngine(["fine"]), system="", sampling=Sampling(), max_tokens=50, guard=Careful())
    for question, rule in ((chest, "chest"), ("since this morning", "")):
        assert conversation.consider(question).rule == rule
        "".join(conversation.answer(conversation.fit(question)))
    conversation.turns = [Turn(chest, "Since when?")]
    assert conversation.consider("since this morning").rule == "chest"
    "".join(conversation.answer(conversation.fit("since this morning")))
    assert conversation.consider("and now?").rule == ""
