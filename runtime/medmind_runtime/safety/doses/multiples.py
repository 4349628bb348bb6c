"""Multiples of a dose, where no number has a unit: `twice the usual dose`, `then double it`, `five times over`.

Knows the words around them. Knows not which dose is meant.
"""

from medmind_runtime.safety.doses.surroundings import Surroundings


def end(around: Surroundings, at: int) -> int:
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
    if not ends and not (vague and (asked or around.drug_in_clause(at))):
        return 0
    if around.denied(at) or (around.texts[at + 1 : at + 2] in (["dose"], ["doses"], ["a"], ["strength"]) and not asked):
        return 0
    return place + 1 if ends else place


def _doubled(around: Surroundings, at: int) -> int:
    """The end of `then double it`, `take double`, `three times what you took`, `five times over`; 0 for none."""
    beside = around.known.beside
    following = around.texts[at + 1 : at + 3]
    text = following[0] if following else "."
    doubling, fold = around.texts[at] in beside.doubling, around.texts[at] in beside.fold
    asked, drug = around.asked_to_take(at - fold), around.drug_in_clause(at)  # before `three times`
    again = around.in_clause(at, beside.repeating) and around.in_clause(at, beside.amounts)
    what = next((step for step, word in enumerate(following, 2) if word in beside.what), 0)
    size = 0
    if asked and what:
        size = what
    elif (asked or drug) and following == ["as", "often"] and not _of_others(around, at + 3):
        size = 3
    elif (doubling and drug and text in beside.doubled) or (fold and (asked or drug) and text in beside.over):
        size = 2
    elif (doubling and asked and text in beside.then) or (fold and again):
        size = 1
    return at + size if size and not around.denied(at) else 0


def _of_others(around: Surroundings, at: int) -> bool:
    """Whether `twice as often` goes on with `as females`."""
    following = around.texts[at : at + 2]
    return len(following) == 2 and following[0] == "as" and following[1] not in around.known.beside.taker
