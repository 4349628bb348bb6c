"""doses.toml: every list of it is read, and every entry of a list can be met with, and needed."""

import re
import tomllib
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

from medmind_runtime.safety.doses.drugs import stem
from medmind_runtime.safety.doses.reading import tokens
from medmind_runtime.safety.doses.terms import Terms
from medmind_runtime.safety.doses.wordlists import Words

ROOM = files("medmind_runtime.safety.doses")
DATA: dict[str, Any] = tomllib.loads((ROOM / "doses.toml").read_text("utf-8"))
SOURCE = "".join(part.read_text("utf-8") for part in ROOM.iterdir() if part.name.endswith(".py"))
RATES = DATA["rates"]["of"]
UNITS = " ".join(f"{row['words']} {row.get('abroad', '')}" for row in DATA["units"].values()).replace("µ", "μ")
BY_VALUE = {
    name: " ".join(DATA[name].values())
    for name in ("numbers_abroad", "periods", "weekdays", "parts_of_day", "groups", "group_adjectives")
}
LISTS = {
    f"{section}.{name}": text
    for section, table in {**DATA, "rates": {k: v for k, v in DATA["rates"].items() if k != "of"}}.items()
    if section not in {"capitals", "wider_groups", "narrower_groups"} and section not in BY_VALUE
    for name, text in table.items()
    if isinstance(text, str)
}
UNIT_NAMES = {name: text for name, text in DATA["unit_lists"].items() if name != "liquids"}
SPELT = " ".join([*DATA["numbers"], *DATA["scales"], *DATA["parts"]])
SAME = {"drugs.same": " ".join(DATA["drugs"]["same"]), "drugs.together": " ".join(DATA["drugs"]["together"])}
ENTRIES = {**LISTS, **RATES, **SAME, **BY_VALUE, "units": UNITS, "numbers": SPELT}
READ_AS = {name: [name] for name in vars(Words(DATA))} | {"rates": ["rates", "named"], "keys": ["keys", "keys_of"]}
"""What the code calls the lists of a section; those of the others are read once, from the file."""


def test_every_list_is_read() -> None:
    read = set(re.findall(r"\b(\w+)(?=\.(\w+))", SOURCE))
    unread = set()
    for name in LISTS:
        section, _, own = name.partition(".")
        owners = READ_AS.get(section)
        found = any((owner, own) in read for owner in owners) if owners else f'["{own}"]' in SOURCE
        unread |= set() if found else {name}
    assert unread == set()


def test_a_list_that_the_code_does_not_know_or_misses_is_refused() -> None:
    for section in READ_AS:
        with pytest.raises(TypeError):
            Terms({**DATA, section: {**DATA[section], "unheard_of": "a b"}})
        name, *_ = (name for name, value in DATA[section].items() if isinstance(value, str))
        with pytest.raises(TypeError):
            Terms({**DATA, section: {key: value for key, value in DATA[section].items() if key != name}})


def test_no_entry_stands_twice_in_a_list() -> None:
    for name, text in ENTRIES.items():
        assert [word for word, count in Counter(text.split()).items() if count > 1] == [], name


def test_every_entry_is_one_that_the_reader_makes() -> None:
    names = {"drugs.endings", "rates.body", *(f"unit_lists.{name}" for name in UNIT_NAMES)}
    lists = {name: text for name, text in ENTRIES.items() if name not in names}
    for name, text in lists.items():
        for word in set(text.split()) - {"*", "~"}:  # signs of Markdown, read as others in some places
            words = word.split("_") if name == "units" or name.startswith("kinds.") else [word]
            assert [token.text for token in tokens(" ".join(words) + " ")] == words, (name, word)


def test_lists_of_names_have_known_names() -> None:
    assert set(DATA["rates"]["body"].split()) <= RATES.keys() | {"m2"}
    named = {name for text in UNIT_NAMES.values() for name in text.split()}
    assert named <= DATA["units"].keys() | {"count"}
    assert {row["rate"] for row in DATA["units"].values() if "rate" in row} <= RATES.keys()
    joined = DATA["numbers_joined"].values()
    assert {word for row in joined for name in ("first", "last") for word in row[name].split()} <= set(
        BY_VALUE["numbers_abroad"].split()
    )
    assert {row["as"] for row in DATA["units"].values() if "as" in row} <= DATA["units"].keys()
    assert set(DATA["capitals"].values()) <= DATA["units"].keys()
    related = [DATA["wider_groups"], DATA["narrower_groups"]]
    assert DATA["group_adjectives"].keys() <= DATA["groups"].keys()
    assert {group for pairs in related for pair in pairs.items() for group in pair} <= DATA["groups"].keys()


def test_capitals_are_read_as_they_are_written() -> None:
    for word in DATA["capitals"]:
        assert [token.written for token in tokens(word + " ")] == [word]


def test_what_is_looked_up_in_another_list_alone_stands_in_it() -> None:
    of = {name: set(text.split()) for name, text in LISTS.items()}
    assert of["beside.products"] <= of["beside.links"]
    assert of["multiplying.doubling"] | of["multiplying.made_so"] <= of["multiplying.words"]
    assert of["eating.drinking"] <= of["beside.taking"]
    assert of["unit_words.colours"] <= set(UNITS.split())
    assert of["foreign.no_roman_units"] <= set(UNITS.split())
    assert of["foreign.ambiguous"] <= set(BY_VALUE["numbers_abroad"].split())


def test_a_name_and_the_one_that_it_is_compared_by_are_read_alike() -> None:
    for name, other in DATA["drugs"]["same"].items():
        assert stem(name) == stem(other), name
    for name, illnesses in DATA["drugs"]["together"].items():
        assert stem(name) == name
        assert stem(name) not in {stem(illness) for illness in illnesses.split()}


def test_what_is_no_drug_would_be_taken_for_one() -> None:
    bare = Terms({**DATA, "drugs": {**DATA["drugs"], "no_drugs": ""}, "beside": {**DATA["beside"], "plain": ""}})
    needless = {word for word in DATA["drugs"]["no_drugs"].split() if not bare.is_drug(word + "s")}
    assert {word for word in needless if not bare.is_drug(word)} == set()
    assert set(DATA["drugs"]["no_drugs"].split()) & set(DATA["drugs"]["names"].split()) == set()


def test_every_drug_is_one_by_its_entry_alone() -> None:
    endings, names = DATA["drugs"]["endings"].split(), DATA["drugs"]["names"].split()
    assert {ending for ending in endings for other in endings if ending != other and ending.endswith(other)} == set()
    unnamed = Terms({**DATA, "drugs": {**DATA["drugs"], "names": ""}})
    assert {name for name in names if unnamed.is_drug(name)} == set()
    whole = Terms(DATA)
    sure_names = DATA["drugs"]["sure_names"].split()
    assert {name for name in [*names, *sure_names] if not whole.is_drug(name)} == set()
    assert {name for name in sure_names if not whole.is_surely_drug(name)} == set()
    unsure = Terms({**DATA, "drugs": {**DATA["drugs"], "sure_names": ""}})
    assert {name for name in sure_names if unsure.is_surely_drug(name)} == set()


def test_a_drug_of_once_a_week_is_one_and_by_the_name_that_it_is_compared_by() -> None:
    for name in DATA["drugs"]["weekly"].split():
        assert Terms(DATA).is_drug(name), name
        assert stem(name) == name


def test_a_misspelt_name_is_one() -> None:
    known = Terms(DATA)
    for name in ("ibuprophen", "amoxycilin", "acetominophen", "zythromax", "losartán"):
        assert known.is_surely_drug(name), name
