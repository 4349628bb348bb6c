"""Multiples of a dose, where no number has a unit: `twice the usual dose`, `then double it`, `five times over`.

Knows the words around them. Knows not which dose is meant.
"""

from medmind_runtime.safety.doses.amounts import is_number
from medmind_runtime.safety.doses.meaning import Meaning


def end(around: Meaning, at: int) -> int:
    """The end of `twice the usual dose`, if it begins here; 0 for none. Warned of it may be."""
    beside = around.known.beside
    if doubled := _doubled(around, at):
        return doubled
    drug = at + 1 + (around.text(at + 1) in beside.own)
    if drug > at + 1 and drug < len(around.row) and around.is_drug(drug) and around.texts[at] in beside.halving:
        return 0 if around.denied(at) or around.measured(drug) else drug + 1
    place = around.past(at + 1, (beside.modifiers | beside.multiplied) - beside.amounts, 5)
    asked = around.asked_to_take(at)
    ends = place < len(around.row) and around.texts[place] in beside.amounts
    vague = around.texts[place - 1] in beside.much
    if not ends and not (vague and (asked or around.drug_in_clause(at) or around.dose_lately(_first(around, at)))):
        return 0
    if around.denied(at) or (around.text(at + 1) in beside.if_told and not asked):
        return 0
    return place + 1 if ends else place


def _doubled(around: Meaning, at: int) -> int:
    """The end of `then double it`, `take double`, `three times what you took`, `five times over`; 0 for none."""
    beside = around.known.beside
    following = around.texts[at + 1 : at + 3]
    text = following[0] if following else "."
    doubling, fold = around.texts[at] in beside.doubling, around.texts[at] in beside.fold
    asked, drug = around.asked_to_take(at - fold), around.drug_in_clause(at)  # before `three times`
    what = next((step for step, word in enumerate(following, 2) if word in beside.what), 0)
    size = 0
    if asked and what:
        size = what
    elif (asked or drug) and following == ["as", "often"] and not _of_others(around, at + 3):
        size = 3
    elif (
        _of_dose(around, _first(around, at), at + 1)
        or (fold and (asked or drug) and text in beside.over)
        or (doubling and drug and text in beside.doubled)
    ):
        size = 2
    elif (doubling and text in beside.then and (asked or _or_so(around, at))) or (
        _repeated(around, at) or _made_so(around, at)
    ):
        size = 1
    return at + size if size and not around.denied(at) else 0


def _first(around: Meaning, at: int) -> int:
    """The place of the number of `five times`, `two to three times`."""
    if around.texts[at] not in around.known.beside.fold:
        return at
    at -= around.text(at - 1) == "more"
    while at and is_number(around.row, at - 1):
        joined = around.text(at - 2) in around.known.beside.joining and at > 2 and is_number(around.row, at - 3)
        at -= 3 if joined else 1
    return at


def _of_dose(around: Meaning, first: int, at: int) -> bool:
    """`200 mg, or twice that`: of the dose that was said last; not `twice that of placebo`, `twice that risk`."""
    beside = around.known.beside
    end = at + 1 + (around.text(at + 1) in beside.amounts | beside.much)
    pointed = around.text(at) in beside.pointing and around.text(end) != "of" and around.ends(end)
    compared = around.text(first - 1) in beside.compared  # `the pain was twice that with placebo`
    return pointed and not compared and around.dose_lately(first)


def _or_so(around: Meaning, at: int) -> bool:
    """`400 mg or double`."""
    beside = around.known.beside
    return around.text(at - 1) in beside.range_to | beside.or_so and around.dose_lately(at)


def _made_so(around: Meaning, at: int) -> bool:
    """`400 mg. It can be doubled`, `400 mg, doubled if needed`; not `the risk may be doubled`."""
    beside = around.known.beside
    if around.texts[at] not in beside.made_so or not around.ends(at + 1):
        return False
    if around.text(at - 1) == ",":
        return around.text(at + 1) in beside.then and around.dose_lately(at)
    place = at - 1
    while around.text(place) in beside.allowing | {"be"}:
        place -= 1
    of_dose = around.text(place) in beside.pointing | beside.amounts or (place >= 0 and bool(around.unit_at(place)))
    return of_dose and around.text(at - 1) == "be" and around.dose_lately(at)


def _repeated(around: Meaning, at: int) -> bool:
    """`repeat it five times`, `repeated twice`, of a dose or a drug; `do that ten times` of a dose alone."""
    beside, often = around.known.beside, around.known.often
    if around.texts[at] not in beside.fold | often.twice | often.thrice or not around.ends(at + 1):
        return False
    place = _first(around, at) - 1
    while place >= 0 and (
        around.texts[place] in beside.repeated or is_number(around.row, place) or around.is_drug(place)
    ):
        place -= 1
    repeating = around.text(place) in beside.repeating
    if not repeating and around.text(place) not in beside.doing:
        return False
    dosed = repeating and not beside.amounts.isdisjoint(around.texts[place:at])
    named = any(map(around.is_drug, range(place, at)))
    return dosed or named or around.dose_lately(place, drug=repeating)


def _of_others(around: Meaning, at: int) -> bool:
    """Whether `twice as often` goes on with `as females`."""
    following = around.texts[at : at + 2]
    return len(following) == 2 and following[0] == "as" and following[1] not in around.known.beside.taker
