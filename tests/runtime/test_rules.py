"""The language of the rules, what is refused of it, and what they are sure of."""

from collections import Counter

import pytest

from medmind_runtime.safety.classifier import KINDS
from medmind_runtime.safety.matching import RAISING
from medmind_runtime.safety.patterns import Compiler
from medmind_runtime.safety.triage import Triage, lexicon_and_rules


def test_what_a_rule_is_sure_of_no_classifier_takes_back() -> None:
    calm = Triage(*lexicon_and_rules(), lambda _text: [0.0 if kind == "everyday" else -99.0 for kind in KINDS])

    def topics(text: str) -> list[str]:
        return [alarm.topic for alarm in calm.alarms(text)]

    told = {
        "bleeding": [
            "nosebleed for an hour on warfarin",
            "dad takes apixaban, nosebleed won't stop, two hours now",
        ],
        "overdose": ["smoke inhalation in a house fire", "he was in a garage fire and swallowed a lot of smoke"],
        "infection": ["my child was bitten by a bat", "monkey bite in bali", "A stray dog bit me in Goa"],
        "pregnancy": ["my period is 2 months late and i bleed heavily", "period a month late, now heavy bleeding"],
        "stroke": [
            "my left side went weak for a bit but it's gone now, I'm fine",
            "his right side went all numb for five minutes, he says it is nothing",
        ],
    }
    assert [text for topic, texts in told.items() for text in texts if topic not in topics(text)] == []
    others = ["chest pain", "what does smoke inhalation in a house fire do?", "my uncle was bitten by a bat in 1987"]
    others += [
        "my dad's left side went weak in 1990",
        "my left side never went weak",
        "the right side of the cake went limp",
    ]
    assert [text for text in others if topics(text)] == []


def test_a_pattern_that_asks_for_one_sentence_and_for_any_is_refused() -> None:
    compiler = Compiler({"small": ["the"], "negations": ["not"]}, (), "small", "negations")
    with pytest.raises(ValueError, match="write && throughout"):
        compiler.pattern("legs && bladder & lost")


def test_a_rule_of_an_unknown_kind_is_refused() -> None:
    lexicon, rules = lexicon_and_rules()
    chest = {**rules["topic"]["chest"], "askd": ["chest pain"]}
    with pytest.raises(ValueError, match="chest has askd"):
        Triage(lexicon, {**rules, "topic": {**rules["topic"], "chest": chest}}, lambda _text: [])
    chest = {**rules["topic"]["chest"], "first": {"about": ["chest pain"]}}
    with pytest.raises(ValueError, match=r"chest has first\.about"):
        Triage(lexicon, {**rules, "topic": {**rules["topic"], "chest": chest}}, lambda _text: [])


def test_a_pattern_that_raises_a_topic_stands_once() -> None:
    _, rules = lexicon_and_rules()
    for topic, entry in rules["topic"].items():
        kinds = [*(entry.get(kind, []) for kind in RAISING), *entry.get("first", {}).values()]
        patterns = [pattern for of_kind in kinds for pattern in of_kind]
        assert [pattern for pattern, count in Counter(patterns).items() if count > 1] == [], topic


def test_tied_words_are_one_alternative() -> None:
    compiler = Compiler({"small": ["the"], "negations": ["not"]}, (), "small", "negations")
    part = compiler.part("boiler|gas_fire|stove leaks")
    known = compiler.characters

    def found(text: str) -> bool:
        return any(True for _ in part.places("".join(known[word] for word in text.split())))

    assert found("boiler leaks") and found("gas fire leaks") and found("the stove leaks")
    assert not found("boiler fire leaks") and not found("gas leaks")
    behind = compiler.pattern("smell & boiler|gas_fire").parts[1]
    assert any(True for _ in behind.places(known["gas"] + known["fire"]))
