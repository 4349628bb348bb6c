"""doses.toml: every list of it is read, and every entry of a list can be met with, and needed."""

import re
import tomllib
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

from medmind_runtime.safety.doses.reading import tokens
from medmind_runtime.safety.doses.terms import Terms

ROOM = files("medmind_runtime.safety.doses")
DATA: dict[str, Any] = tomllib.loads((ROOM / "doses.toml").read_text("utf-8"))
SOURCE = "".join(part.read_text("utf-8") for part in ROOM.iterdir() if part.name.endswith(".py"))
RATES = DATA["rates"]["of"]
UNITS = " ".join(f"{row['words']} {row.get('abroad', '')}" for row in DATA["units"].values()).replace("µ", "μ")
ABROAD = " ".join(DATA["numbers_abroad"].values())
LISTS = {
    f"{section}.{name}": text
    for section, table in {**DATA, "rates": {k: v for k, v in DATA["rates"].items() if k != "of"}}.items()
    if section not in {"capitals", "numbers_abroad"}
    for name, text in table.items()
    if isinstance(text, str)
}
ENTRIES = {**LISTS, **RATES, "units": UNITS, "numbers_abroad": ABROAD}


def test_every_list_is_read() -> None:
    names = {name.rpartition(".")[2] for name in LISTS}
    assert {name for name in names if not re.search(rf'\.{name}\b|\["{name}"\]', SOURCE)} == set()


def test_a_list_that_the_code_does_not_know_or_misses_is_refused() -> None:
    for section in ("beside", "rates", "unit_lists", "document"):
        with pytest.raises(TypeError):
            Terms({**DATA, section: {**DATA[section], "unheard_of": "a b"}})
        name, *_ = (name for name, value in DATA[section].items() if isinstance(value, str))
        with pytest.raises(TypeError):
            Terms({**DATA, section: {key: value for key, value in DATA[section].items() if key != name}})


def test_no_entry_stands_twice_in_a_list() -> None:
    for name, text in ENTRIES.items():
        assert [word for word, count in Counter(text.split()).items() if count > 1] == [], name


def test_every_entry_is_one_that_the_reader_makes() -> None:
    names = {"drugs.endings", "rates.body", *(f"unit_lists.{name}" for name in DATA["unit_lists"])}
    lists = {
        name: text
        for name, text in {**LISTS, **RATES, "units": UNITS, "numbers_abroad": ABROAD}.items()
        if name not in names
    }
    for name, text in lists.items():
        for word in set(text.split()) - {"*", "~"}:  # signs of Markdown, read as others in some places
            words = word.split("_") if name == "units" or name.startswith("kinds.") else [word]
            assert [token.text for token in tokens(" ".join(words) + " ")] == words, (name, word)


def test_lists_of_names_have_known_names() -> None:
    assert set(DATA["rates"]["body"].split()) <= RATES.keys() | {"m2"}
    named = {name for text in DATA["unit_lists"].values() for name in text.split()}
    assert named <= DATA["units"].keys() | {"count"}


def test_what_is_no_drug_would_be_taken_for_one() -> None:
    bare = Terms({**DATA, "drugs": {**DATA["drugs"], "no_drugs": ""}, "beside": {**DATA["beside"], "plain": ""}})
    needless = {word for word in DATA["drugs"]["no_drugs"].split() if not bare.is_drug(word + "s")}
    assert {word for word in needless if not bare.is_drug(word)} == set()
