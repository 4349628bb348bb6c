"""The lists of words of doses.toml, each section in a class of its own. Knows no single words."""

from typing import Any

from medmind_runtime.safety.doses.wordlists.around import Beside, Foreign, Rates, UnitLists, UnitWords
from medmind_runtime.safety.doses.wordlists.frequency import Often, Pausing
from medmind_runtime.safety.doses.wordlists.people import Answering, Asking, Grown, Keys
from medmind_runtime.safety.doses.wordlists.things import Eating, Measuring, Naming, Preparations
from medmind_runtime.safety.doses.wordlists.unitless import (
    Handling,
    Limitless,
    Moving,
    Multiplying,
    Summing,
    Timing,
    Unitless,
)

_OVER_LINES = frozenset({"soft", "equals", "clause_ends"})
"""Lists to which the end of a line belongs: one may stand between a number and its unit."""


def listed(text: str) -> frozenset[str]:
    """The words of one list."""
    return frozenset(text.split())


def lists(table: dict[str, str]) -> dict[str, frozenset[str]]:
    """All lists of a section, by their names."""
    return {
        name: listed(text) | (frozenset("\n") if name in _OVER_LINES else frozenset()) for name, text in table.items()
    }


class Words:
    """All of them: of each section of doses.toml there is an attribute of its name.

    Args:
        data: the content of doses.toml.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        rates = dict(data["rates"])
        self.rates = Rates(of=lists(rates.pop("of")), **lists(rates))
        self.beside = Beside(**lists(data["beside"]))
        self.unit_words = UnitWords(**lists(data["unit_words"]))
        self.unit_lists = UnitLists(**lists(data["unit_lists"]))
        self.foreign = Foreign(**lists(data["foreign"]))
        self.unitless = Unitless(**lists(data["unitless"]))
        self.timing = Timing(**lists(data["timing"]))
        self.moving = Moving(**lists(data["moving"]))
        self.handling = Handling(**lists(data["handling"]))
        self.multiplying = Multiplying(**lists(data["multiplying"]))
        self.limitless = Limitless(**lists(data["limitless"]))
        self.summing = Summing(**lists(data["summing"]))
        self.often = Often(**lists(data["often"]))
        self.pausing = Pausing(**lists(data["pausing"]))
        self.naming = Naming(**lists(data["naming"]))
        self.preparations = Preparations(**lists(data["preparations"]))
        self.eating = Eating(**lists(data["eating"]))
        self.measuring = Measuring(**lists(data["measuring"]))
        self.grown = Grown(**lists(data["grown"]))
        self.asking = Asking(**lists(data["asking"]))
        self.answering = Answering(**lists(data["answering"]))
        self.keys = Keys(**lists(data["keys"]))
