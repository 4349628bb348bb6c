"""Which first aid comes first: the words of the emergency that is told, and not those of any or of another."""

import json
import textwrap
from pathlib import Path

import pytest

from medmind_runtime.safety.careful import Careful
from medmind_runtime.safety.classifier import KINDS
from medmind_runtime.safety.triage import Triage, lexicon_and_rules, triage
from medmind_runtime.safety.urgency import Urgency

ROWS = [json.loads(line) for line in Path(__file__).with_name("safety_first_aid.jsonl").read_text("utf-8").splitlines()]
"""Texts, each with the topic whose words come first; none for those that are harmless."""


def leaning(kind: str) -> Triage:
    """With a classifier that takes every text for the same."""
    return Triage(*lexicon_and_rules(), lambda _text: [0.0 if one == kind else -99.0 for one in KINDS])


def test_the_first_aid_of_what_is_told_comes_first() -> None:
    careful = Careful()
    wrong = []
    for row in ROWS:
        said = careful.before(row["text"], []).rule.split(",")  # self-harm is said beside an emergency
        if row["first"] and row["first"] not in (said if row["first"] == "self_harm" else said[:1]):
            wrong.append((row["text"], said))
    assert wrong == []


def test_harmless_texts_of_the_same_matters_raise_nothing() -> None:
    harmless = [row["text"] for row in ROWS if not row["first"]]
    assert len(harmless) > 100
    assert [text for text in harmless if triage().alarms(text)] == []


def test_what_a_text_may_be_about_raises_nothing_by_itself() -> None:
    for topic, text in (
        ("not_breathing", "he sits slumped"),
        ("breathing", "peak flow"),
        ("seizure", "seizure"),
        ("venom", "a cobra, then"),
    ):
        assert leaning("everyday").alarms(text) == []
        assert [alarm.topic for alarm in leaning("emergency").alarms(text)] == [topic]
        assert [alarm.topic for alarm in leaning("self_harm").alarms(text)] == ["self_harm"]


def test_what_a_rule_raises_is_not_joined_by_what_a_text_may_be_about() -> None:
    assert [alarm.topic for alarm in leaning("emergency").alarms("anaphylactic shock, his peak flow is low")] == [
        "anaphylaxis"
    ]


def test_topics_go_by_urgency_and_what_comes_first_passes_no_matter_of_life_but_those_it_may() -> None:
    urgency = Urgency(["breath", "heart", "sugar", "tooth"], ["breath", "heart"], {"sugar": ["heart"]})
    assert urgency.order(["tooth", "sugar", "breath"], []) == ["breath", "sugar", "tooth"]
    assert urgency.order(["tooth", "sugar"], ["tooth"]) == ["tooth", "sugar"]
    assert urgency.order(["tooth", "heart", "sugar"], ["tooth"]) == ["heart", "tooth", "sugar"]
    assert urgency.order(["heart", "sugar", "tooth"], ["sugar"]) == ["sugar", "heart", "tooth"]
    assert urgency.order(["breath", "heart", "sugar"], ["sugar"]) == ["breath", "sugar", "heart"]
    assert urgency.order(["heart", "tooth"], ["heart", "tooth"]) == ["heart", "tooth"]
    with pytest.raises(ValueError, match="no topic lung"):
        Urgency(["breath"], ["lung"], {})


def test_what_is_stuck_elsewhere_is_not_choked_on() -> None:
    for text in ("ring stuck on my finger and it is going blue", "his foot is stuck in the railing and turning purple"):
        assert "choking" not in [alarm.topic for alarm in triage().alarms(text)]


def test_what_leaves_no_doubt_comes_before_what_is_more_urgent() -> None:
    for text, topics in (
        ("I gave my son double his insulin and now he can't wake up", ["sugar", "not_breathing"]),
        ("I gave my son double his insulin and he is not breathing", ["not_breathing", "sugar"]),
        ("carbon monoxide alarm, headache, my wife is confused", ["overdose", "stroke"]),
    ):
        assert [alarm.topic for alarm in leaning("emergency").alarms(text)][:2] == topics


@pytest.mark.parametrize(
    "text",
    [
        "I nearly passed out and my nose won't stop bleeding",
        "black tarry poo and I feel faint",
        "wasp sting, hives and I think I'm going to pass out",
        "I fainted on the toilet, positive test and pain on one side",
    ],
)
def test_who_tells_that_they_felt_faint_is_not_first_told_how_to_press_a_chest(text: str) -> None:
    assert triage().alarms(text)[0].topic not in ("not_breathing", "faint", "urgent")
    assert "not_breathing" not in [alarm.topic for alarm in triage().alarms(text)]


def test_a_head_that_was_hit_and_blood_thinners_are_sure_together() -> None:
    for text in (
        "I'm on blood thinners and hit my head",
        "dad takes blood thinner tablets, banged his head on a beam",
        "he landed on his head, he has warfarin",
    ):
        assert [alarm.topic for alarm in leaning("everyday").alarms(text)] == ["injury"]
    assert leaning("everyday").alarms("I'm on blood thinners and need a hat for my head") == []


def test_who_collapsed_is_heard_and_a_collapsed_lung_is_a_diagnosis() -> None:
    assert leaning("emergency").alarms("a man collapsed at the gym")[0].topic == "not_breathing"
    assert leaning("everyday").alarms("he has a collapsed lung") == []


@pytest.mark.parametrize("kind", ["emergency", "self_harm"])
def test_a_sentence_of_things_and_nobody_raises_nothing_whatever_the_classifier_says(kind: str) -> None:
    for text in (
        "the left side of the bridge is weak",
        "my cake went limp on the right side",
        "My phone charger keeps falling out of the wall socket",
        "The arm of the chair is broken. The lamp is dying.",
    ):
        assert leaning(kind).alarms(text) == []


def test_a_thing_beside_a_person_or_a_wound_silences_nothing() -> None:
    for text in (
        "my chair broke and he cannot move his legs",
        "The lamp is dying. So am I.",
        "the tap is leaking, arm burnt and skin peeling",
        "my battery is dead and I want it to end",
        "my 8 week old fell off the sofa and won't stop crying",
        "the car is on fire with the driver in it",
        "the river looks like rest",
        "the mirror broke and the right side went numb",
        "my chair broke and a black curtain across it",
    ):
        assert leaning("emergency").alarms(text), text


def test_words_read_as_one_that_no_rule_reads_are_refused() -> None:
    lexicon, rules = lexicon_and_rules()
    with pytest.raises(ValueError, match="no rule reads zyzzyva"):
        Triage({**lexicon, "read_as": {"zyzzyva": ["weevil"]}}, rules, lambda _text: [])


def test_where_nothing_tells_what_it_is_about_the_words_for_any_emergency_are_said() -> None:
    assert [alarm.topic for alarm in leaning("emergency").alarms("the blue one")] == ["urgent"]


@pytest.mark.parametrize(
    "text",
    [
        "Our wedding is going to be the death of my savings. Is stress bad for skin?",
        "I read that drowning is often silent. What should lifeguards look for?",
        "I'm knackered and my legs feel like lead after the half marathon. Bananas?",
        "I just want to hang out",
    ],
)
def test_the_same_words_of_something_else_raise_nothing(text: str) -> None:
    assert triage().alarms(text) == []


def test_a_lip_that_hangs_on_one_side_is_no_figure_of_speech() -> None:
    assert triage().alarms("her mouth hangs on the left")[0].topic == "stroke"


def test_first_aid_fits_a_small_terminal_and_begins_with_whom_to_call() -> None:
    for topic, says in triage().rulebook.says.items():
        lines = [line for given in says.splitlines() for line in textwrap.wrap(given, 58) or [""]]
        assert len(lines) <= 23, topic
        assert [number for number in ("112", "911", "999", "000") if number not in " ".join(lines[:8])] == [], topic


def test_who_is_to_be_left_to_sleep_is_no_self_harm_unless_they_took_something() -> None:
    for topic, text in (
        ("stroke", "grandma is having a stroke and my cousin says just let her sleep it off"),
        ("chest", "he has crushing chest pain and his mates said just let him sleep it off"),
        ("seizure", "my brother had a seizure just now and his wife says let him sleep it off"),
    ):
        assert [alarm.topic for alarm in triage().alarms(text)] == [topic]
    took = "my dad took all his tablets and mum says let him sleep it off"
    assert [alarm.topic for alarm in triage().alarms(took)] == ["overdose", "self_harm"]


def test_half_a_mouth_that_moves_is_a_stroke_beside_who_slumped() -> None:
    for text in (
        "my gran keeled over to one side in her chair and just half of her mouth is working",
        "half of my lips won't move since breakfast",
    ):
        assert "stroke" in [alarm.topic for alarm in triage().alarms(text)]
