"""Strengths of what is taken: so many `of the 200 mg tablets`, a `5% patch`, and `patches, three of them`.

Knows the words between a count and a strength. Knows not which drug is meant.
"""

from medmind_runtime.safety.doses.amounts import Amount, is_number, read
from medmind_runtime.safety.doses.terms import Unit
from medmind_runtime.safety.doses.units import Units


def counted(around: Units, count: Amount) -> tuple[Amount, Unit, int] | None:
    """`ten of your 200 mg tablets`, `three lots of 400 mg` as a product, its unit and the end of it."""
    preparations, beside = around.known.preparations, around.known.beside
    begin = count.end + (around.text(count.end) in around.known.summing.lots)
    if around.text(begin) != "of":
        return None
    at = around.past(begin, preparations.of_strength | beside.modifiers, 6)
    if at >= len(around.row) or not is_number(around.row, at):
        return None
    strength = read(around.row, at)
    found = around.unit_after(at, strength.end)
    if not found or found[0].kind != "" or not around.means_dose(found[0], at, found[1]):
        return None
    return Amount(strength.end, (*count.values, *strength.values), True), *found


def percent_end(around: Units, first: int, end: int) -> int:
    """The end of the number and its sign in `5% patch`, `permethrin 5% solution`, `apply minoxidil 5%`; 0 for none."""
    beside, preparations, measuring = around.known.beside, around.known.preparations, around.known.measuring
    if around.text(end) not in beside.percent:
        return 0
    place = around.past(end + 1, beside.modifiers, 3)
    drug = first > 0 and (around.is_drug(first - 1) or around.is_drug(place - 1))
    forms = preparations.strengthened | preparations.dissolved if drug else preparations.strengthened
    if around.text(place) in forms and around.text(place + 1) not in beside.counted | measuring.measures:
        return end + 1
    applied = drug and around.is_drug(first - 1) and around.ends(end + 1) and around.text(end + 1) != "of"
    return end + 1 if applied and around.asked_to_take(first) else 0


def told(around: Units, first: int, end: int) -> bool:
    """Whether a number is the count of what stands before it: `patch x 3`, `patches (three)`, `tablets: ten`."""
    multiplying, beside, before = around.known.multiplying, around.known.beside, around.text(first - 1)
    times = before in multiplying.multiplied_by and around.ends(end)
    if times and around.text(first - 2) in multiplying.repeating:  # `repeat x 5`
        return around.dose_lately(first - 2, drug=True)
    apart = before in beside.set_apart and around.text(end) in {"", ".", "\n", ")"}
    return (apart or times) and around.taken_at(first - 2) and around.drug_in_clause(first)
