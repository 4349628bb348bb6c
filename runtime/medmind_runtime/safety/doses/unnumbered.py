"""Doses without a number: `a gram of`, `both tablets`, `a few pills`, `handfuls of tramadol`, `finish the whole box`.

Knows articles and words of how much. Knows not how a number is read.
"""

from typing import NamedTuple

from medmind_runtime.safety.doses import foods
from medmind_runtime.safety.doses.amounts import is_number
from medmind_runtime.safety.doses.terms import Unit
from medmind_runtime.safety.doses.units import Units


class Unnumbered(NamedTuple):
    """How much it is.

    Attributes:
        unit: of it.
        end: the token after the unit.
        word: that says how much; empty for one.
        heap: it is `handfuls`, of which nothing more is said.
    """

    unit: Unit
    end: int
    word: str
    heap: bool = False


def amount(around: Units, at: int) -> Unnumbered | None:
    """The one that begins here."""
    beside, text = around.known.beside, around.texts[at]
    if text in around.known.heaps and ((heap := _heap(around, at)) or text not in beside.vague):
        return heap
    place = around.past(at + 1, around.known.before_unit, 3)
    found = around.unit_at(place) if place < len(around.row) else None
    if found is None and around.text(place) in around.known.sizes:  # `a thumbnail-sized piece of opium`
        place = around.past(place, around.known.sizes, 3)
        found = around.unit_at(place) if place < len(around.row) else None
    if found is None or around.texts[place + 1 : place + 3] == ["-", "like"]:
        return None
    unit, size = found
    end, finished = place + size, False
    if text in beside.articles:
        counts = _one(around, at, place, end, unit)
    elif text in beside.all:
        asked = around.asked_to_take(at) and not around.denied(at)
        counts = asked and unit.kind in {"form", "soft"} and unit.spelt != "dose"
        finished = not counts and _finished(around, at, unit)
    else:
        counts = unit.spelt not in around.known.unit_lists.loose and around.texts[at - 1 : at] != ["how"]
    counts = counts and around.means_dose(unit, at, end) and not foods.held(around, unit, at, end)
    return Unnumbered(unit, end, "" if text in beside.articles else text) if finished or counts else None


def _heap(around: Units, at: int) -> Unnumbered | None:
    """`swallow handfuls of tramadol`, `take tramadol by the handful`."""
    if not (found := around.unit_at(at)):
        return None
    end = at + found[1]
    several = around.texts[at].endswith("s") and around.text(end) == "of" and around.drug_ahead(end, 4)
    told = several and around.asked_to_take(at)
    by_the = around.texts[at - 2 : at] == ["by", "the"] and around.drug_in_reach(at)
    taken = around.in_clause(at, around.known.beside.taking) or around.is_drug(max(0, at - 3))
    told = told or (by_the and taken)
    return Unnumbered(found[0], end, "some", True) if told else None


def _of_liquid(around: Units, at: int, end: int) -> bool:
    """`a shot of syrup`, of a drug or to be taken."""
    place = around.past(end, around.known.before_unit | around.known.beside.of_drug, 4)
    liquid = not around.known.unit_lists.liquids.isdisjoint(around.texts[place : place + 2])
    return liquid and (around.asked_to_take(at) or around.drug_in_reach(at) or around.drug_ahead(end))


def _finished(around: Units, at: int, unit: Unit) -> bool:
    """`finish the whole box`, of a drug."""
    verb = at - 1 - (around.text(at - 1) in around.known.beside.own)
    told = around.text(verb) in around.known.preparations.finishing and not around.denied(at)
    return unit.spelt == "packet" and told and (around.drug_in_reach(at) or around.drug_ahead(at))


def _one(around: Units, at: int, place: int, end: int, unit: Unit) -> bool:
    """Whether `a` with a unit means one of it, as in `take a tablet`, not in `it comes as a tablet`."""
    preparations, unit_lists, beside, spelt = (
        around.known.preparations,
        around.known.unit_lists,
        around.known.beside,
        unit.spelt,
    )
    if unit.kind == "soft" and around.text(around.past(end, preparations.into, 3)) in preparations.places:
        return around.drug_in_clause(at)
    of = around.text(end) == "of" or (around.text(end) == "with" and around.drug_ahead(end, 4))
    of = of and not (end + 1 < len(around.row) and is_number(around.row, end + 1))
    alone = of and around.asked_to_take(at) and around.drug_ahead(end, 3)
    alone = alone or (bool(around.rates(end)[1]) and around.drug_in_reach(at))  # `timolol, a drop an hour`
    strip = spelt == "packet" and around.texts[place] != "pack"  # not `a pack a day` of cigarettes
    if (alone and (strip or spelt in unit_lists.dosed_alone)) or (
        of and spelt in unit_lists.poured and _of_liquid(around, at, end)
    ):
        return True
    if of and spelt == "liter":
        syrup = around.text(around.past(end, beside.of_drug, 3)) in around.known.often.objects
        return around.drug_ahead(end, 2) or (syrup and around.asked_to_take(at))
    if around.texts[at] in beside.each or (unit.kind == "soft" and spelt in unit_lists.loose):
        return False
    if spelt == "unit":
        return around.texts[at] == "another"
    loose = spelt in unit_lists.loose_measures and not around.texts[place].endswith("ful")
    measured = unit.kind in {"", "of"} or (unit.kind == "household" and (of or not loose))
    heap = around.asked and spelt in unit_lists.heaped and not of
    of_drug = of and (
        (unit.kind == "form" and around.drug_ahead(end)) or (unit.kind == "soft" and around.drug_ahead(end, 4))
    )
    return (measured and len(around.texts[place]) > 1) or of_drug or heap or (around.asked_to_take(at) and not loose)
