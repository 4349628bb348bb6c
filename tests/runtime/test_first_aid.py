"""Which first aid comes first: the words of the emergency that is told, and not those of any or of another."""

import json
from pathlib import Path

import pytest

from medmind_runtime.safety.careful import Careful
from medmind_runtime.safety.classifier import KINDS
from medmind_runtime.safety.triage import Triage, lexicon_and_rules, triage

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
