"""Doses that only the taker ends, or what holds them: `as many as you like`, `until the canister is empty`, `all that
is left in the box`, `finish the bottle in one go`.

Knows these turns of phrase. A packet that lasts for days is how long something is taken, and no dose.
"""

from medmind_runtime.safety.doses.surroundings import NEAR
from medmind_runtime.safety.doses.units import Units


def end(around: Units, at: int) -> int:
    """The end of one that begins here; 0 for none."""
    limitless, text = around.known.limitless, around.texts[at]
    if text in limitless.much:
        found = _as_much_as(around, at)
    elif text in limitless.until:
        found = _until_empty(around, at)
    elif text in limitless.whatever:
        found = _what_is_left(around, at)
    elif text in limitless.lasting:
        found = _without_stopping(around, at)
    else:
        found = _in_one_go(around, at)
    of_drug = found and (around.drug_in_reach(at) or around.drug_near(at))
    return found if of_drug and not around.denied(at) else 0


def _as_much_as(around: Units, at: int) -> int:
    """`as many tablets as you like`; not `as much water as you like`."""
    limitless, known = around.known.limitless, around.known
    if around.text(at - 1) != "as":
        return 0
    again = next((place for place in range(at + 1, min(len(around.row), at + NEAR)) if around.texts[place] == "as"), 0)
    liked = again and around.text(again + 1) in known.moving.doers and around.text(again + 2) in limitless.liking
    if not liked:
        return 0
    if around.asked and around.text(at - 2) in {"", ".", "\n"} and again == at + 1:
        return again + 3
    between = around.texts[at + 1 : again]
    drug = any(map(around.is_drug, range(at + 1, again)))
    verbs = known.handling.pressing | (known.beside.taking - (frozenset() if drug else known.eating.drinking))
    taken = around.in_clause(at, verbs)
    return again + 3 if taken and known.eating.no_medicine.isdisjoint(between) else 0


def _until_empty(around: Units, at: int) -> int:
    """`until the inhaler runs out`, `until nothing comes out`: of what is emptied at once, and not in a week."""
    limitless, handling = around.known.limitless, around.known.handling
    place = around.past(at + 1, handling.one_of | around.known.beside.own | limitless.holders | {"the"}, 4)
    named = {*around.texts[at + 1 : place], *around.clause_before(at)}
    emptied = around.phrase(around.known.emptied, place)
    done = around.in_clause(at, around.known.beside.taking | handling.pressing)
    return emptied if emptied and done and not named.isdisjoint(limitless.holders) else 0


def _what_is_left(around: Units, at: int) -> int:
    """`swallow what remains in the box`, `take all that is left in the packet`, `swallow the lot`."""
    limitless, place = around.known.limitless, at + 1
    swallowed = around.in_clause(at, around.known.multiplying.swallowing - around.known.eating.giving)
    if around.texts[max(0, at - 1) : at + 1] == ["the", "lot"]:
        return place if swallowed else 0
    while around.text(place) in limitless.that:
        place += 1
    if around.text(place) not in limitless.left or around.text(place + 1) not in {"in", "of"}:
        return 0
    place = around.past(place + 2, around.known.before_unit | around.known.beside.of_drug, 4)
    found = around.unit_at(place) if place < len(around.row) else None
    packet = found is not None and found[0].spelt == "packet" and "back" not in around.texts[place : place + NEAR]
    return place + 1 if packet and swallowed else 0


def _without_stopping(around: Units, at: int) -> int:
    """`press the inhaler without stopping`, `puffs without limit`."""
    stopping = around.text(at + 1) in around.known.limitless.stopping
    unit = around.unit_at(at - 1) if at else None
    return at + 2 if stopping and (unit or around.in_clause(at, around.known.handling.pressing)) else 0


def _in_one_go(around: Units, at: int) -> int:
    """`finish the bottle in one go`, `empty the whole canister`."""
    place = around.past(at + 1, around.known.before_unit | around.known.beside.own, 3)
    found = around.unit_at(place) if at + 1 < place < len(around.row) else None
    whole = not around.known.beside.all.isdisjoint(around.texts[at + 1 : place])
    if whole and around.text(place) in around.known.limitless.holders:
        return place + 1
    if found is None or found[0].spelt != "packet":
        return 0
    ends = (around.phrase(around.known.at_once, far) for far in range(place + 1, min(len(around.row), place + NEAR)))
    return next((far for far in ends if far), 0)
