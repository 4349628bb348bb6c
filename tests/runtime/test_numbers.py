"""Numbers, units and ages as people type them, each kind in emergencies and in harmless twins; and letters apart."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from medmind_runtime.guard import Before
from medmind_runtime.safety import measures
from medmind_runtime.safety.careful import Careful
from medmind_runtime.safety.classifier import KINDS
from medmind_runtime.safety.triage import Triage, lexicon_and_rules, triage
from medmind_runtime.safety.words import plain, split
from medmind_runtime.turn import Turn

ROWS = [json.loads(line) for line in Path(__file__).with_name("safety_numbers.jsonl").read_text("utf-8").splitlines()]
GROUPS = sorted({row["group"] for row in ROWS})
BEFORE = (
    "We are planning the meals for next week. Pasta with tomatoes is popular here. The market has cheap carrots. "
    "Apples go well with oats. "
)
BEHIND = (
    ". How long do lentils have to cook? Is butter better than oil for baking? Which cheese has little salt? "
    "We drink tea without sugar."
)


@cache
def topics(text: str) -> list[str]:
    return [alarm.topic for alarm in triage().alarms(text)]


def of(group: str, label: str) -> list[Mapping[str, Any]]:
    found = [row for row in ROWS if (row["group"], row["label"]) == (group, label)]
    assert found
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_numbers_that_tell_of_an_emergency_are_heard(group: str) -> None:
    assert [row["text"] for row in of(group, "emergency") if not topics(row["text"])] == []


@pytest.mark.parametrize("group", GROUPS)
def test_harmless_numbers_raise_nothing(group: str) -> None:
    assert [row["text"] for row in of(group, "none") if topics(row["text"])] == []


def test_what_numbers_alone_make_an_emergency_is_heard_in_any_surroundings() -> None:
    amid = [row["text"] for row in ROWS if row.get("amid")]
    assert len(amid) > 30
    assert [one for one in amid if not topics(BEFORE + one[0].upper() + one[1:] + BEHIND)] == []


def test_the_topic_that_the_numbers_name_comes_first() -> None:
    told = [(row["text"], row["first"]) for row in ROWS if "first" in row]
    assert {first for _, first in told} == {"infant", "overdose", "seizure", "sugar"}
    assert [text for text, first in told if topics(text)[0] != first] == []


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("is it normal that my newborn of nine days has 100.9F", ["infant"]),
        ("my mother's sats are 82", ["breathing"]),
        ("sugar 31 and he is confused", ["sugar"]),
        ("104.5F and confused", ["infection"]),
        ("bp 210/130 with a headache", ["urgent"]),
        ("190 over 125 and blurred vision", ["urgent"]),
        ("my newborn of nine days has 98.6F", []),
        ("my mother's sats are 90", []),
        ("target sats of 85 to 87, she says", []),
        ("sugar 31 and he asks why", []),
        ("bp 124/82 with a headache", []),
        ("the bath for my newborn is at 100.9F", []),
    ],
)
def test_what_the_classifier_does_not_take_back(text: str, first: list[str]) -> None:
    calm = Triage(*lexicon_and_rules(), lambda _text: [0.0 if kind == "everyday" else -99.0 for kind in KINDS])
    assert [alarm.topic for alarm in calm.alarms(text)][:1] == first


def named(text: str) -> set[str]:
    words = split(plain(text), {})
    return {measures.name(words, at) for at, word in enumerate(words) if word.value is not None} - {""}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("our 6wk has 101F", {"young_infant", "fever_degrees"}),
        ("my newborn of nine days", {"young_infant"}),
        ("he is only 8 weeks", {"young_infant"}),
        ("my little man is 4 weeks", {"young_infant"}),
        ("he's 7 weeks", {"young_infant"}),
        ("she's 7 weeks pregnant", {"weeks_along"}),
        ("our little girl is 4 weeks late", set()),
        ("38.2 in the ear", {"fever_degrees"}),
        ("38.2 in the morning", set()),
        ("she was born 12 days ago", {"young_infant"}),
        ("it began 12 days ago", set()),
        ("he is 2 weeks post surgery", set()),
        ("she is 3", set()),
        ("temperature was 37.2", {"normal_degrees"}),
        ("temp 98.6 F", {"normal_degrees"}),
        ("temperature of 36.2", {"normal_degrees"}),
        ("temperature of 35.9", set()),
        ("my baby has a temperature of 36.2", set()),
        ("20 weeks pregnant", {"weeks_along"}),
        ("pregnant, 5 months", {"weeks_along"}),
        ("20 weeks of pain", set()),
        ("a newborn with a temp of 36.0", set()),
        ("bath water of 38 degrees", set()),
        ("the bath for my newborn is at 100.9F", set()),
        ("milk temperature of 38 degrees", set()),
        ("38 degrees hot water", set()),
        ("hot after the bath, 38.6 degrees", {"fever_degrees"}),
        ("after the bath she has 38.6 degrees", {"fever_degrees"}),
        ("drank her milk, temp 38.6", {"fever_degrees"}),
        ("has 101F after a bath", {"fever_degrees"}),
        ("type 2 diabetes, sugar 6.4", set()),
        ("I am 45 and my sugar is 5.4", set()),
        ("30 g of sugar", set()),
        ("sugar 31", {"extreme_sugar"}),
        ("pulse 72 and oxygen 84", {"very_low_oxygen"}),
        ("oximeter says 99 and pulse 72", set()),
        ("I am 80 and my oxygen is 96", set()),
        ("oxygen 90", {"low_oxygen"}),
        ("sats 96 RA, P 82 reg, BP 134/78, alert", set()),
        ("SpO2 97, RR 18, wt 81", set()),
        ("P 82, sats 84 RA", {"very_low_oxygen"}),
        ("my dad is 85 and on oxygen at home", set()),
        ("Grandad, 87, has an oxygen machine", set()),
        ("an oximeter costs 75 dollars", set()),
        ("sats 45 on the finger", {"very_low_oxygen"}),
        ("84 oxygen", {"low_oxygen"}),
        ("84 oxygen 72 pulse", {"low_oxygen"}),
        ("pulse 82 oxygen 95", set()),
        ("I have sat with 84 of them", set()),
        ("o2 sat 84", {"very_low_oxygen"}),
        ("sats on the monitor 84 pulse 90", {"very_low_oxygen"}),
        ("oximeter reads 84 and 160 pulse", {"very_low_oxygen", "extreme_pulse"}),
        ("sugar is 8, 38 pulse", {"extreme_pulse"}),
        ("he weighs 12. Tablets are hard for him", set()),
        ("my 2week trip", set()),
        ("a 7day course", set()),
        ("my 6wk has a temp of 38.6", {"young_infant", "fever_degrees"}),
        ("pulse 170", {"extreme_pulse"}),
        ("pulse 170 when running", set()),
        ("190 over 125", {"extreme_pressure"}),
        ("120 over 80", set()),
        ("my prescription is for thirty tablets", set()),
        ("took thirty tablets of the prescription", {"many_doses"}),
    ],
)
def test_a_number_is_what_its_words_make_it(text: str, names: set[str]) -> None:
    assert named(text) == names


def test_a_normal_temperature_is_read_as_normal_where_no_rule_hears_anything() -> None:
    read: list[str] = []

    def classify(text: str) -> list[float]:
        read.append(text)
        return [0.0 if kind == "everyday" else -99.0 for kind in KINDS]

    heard = Triage(*lexicon_and_rules(), classify)
    heard.alarms("Temperature was 37.2, she is 3")
    heard.alarms("Temperature was 37.2, she has chest pain")
    assert read[0] == "temperature was  normal , she is 3"
    assert read[-1] == "temperature was 37.2, she has chest pain"


def test_a_face_that_droops_is_told_as_a_stroke_whatever_the_sugar() -> None:
    assert topics("his sugar is 31, he is confused and his face is drooping")[0] == "stroke"
    assert topics("his sugar is 31 and he is confused") == ["sugar", "stroke"]


def test_the_same_words_are_not_said_twice_under_two_names() -> None:
    earlier = [Turn("my sugar is 31 and I feel sick", "Since when?")]
    before: Before = Careful().before("now it is 32, glucose 32, and I am confused", earlier)
    assert before.opening.count("Low sugar, or not sure") == 1
