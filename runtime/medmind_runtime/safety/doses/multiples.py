"""Multiples of a dose, where no number has a unit: `twice the usual dose`, `then double it`, `five times over`.

Knows the words around them. Knows not which dose is meant.
"""

from medmind_runtime.safety.doses.amounts import is_number
from medmind_runtime.safety.doses.meaning import Meaning
from medmind_runtime.safety.doses.surroundings import NEAR


def end(around: Meaning, at: int) -> int:
    """The end of `twice the usual dose`, if it begins here; 0 for none. Warned of it may be."""
    multiplying, beside = around.known.multiplying, around.known.beside
    if around.text(_first(around, at) - 1) in multiplying.other_verbs:
        return 0
    if doubled := _doubled(around, at) or _of_drug(around, at):
        return doubled
    place = around.past(at + 1, (beside.modifiers | multiplying.multiplied) - beside.dose_names, 5)
    asked = around.asked_to_take(at) or _had(around, at)
    ends = place < len(around.row) and around.texts[place] in beside.dose_names
    vague = around.texts[place - 1] in multiplying.much or (
        asked and not multiplying.much.isdisjoint(around.texts[at + 1 : place])
    )
    if not ends and not (vague and (asked or around.drug_in_clause(at) or around.dose_lately(_first(around, at)))):
        return 0
    after = around.past(place + 1, beside.of_drug, 4)
    fits = around.text(after) in beside.being and around.text(after + 1) in beside.fitting
    if around.denied(at) or (around.text(at + 1) in multiplying.if_told and not asked and not fits):
        return 0
    return place + 1 if ends else place


def _doubled(around: Meaning, at: int) -> int:
    """The end of `then double it`, `take double`, `three times what you took`, `five times over`; 0 for none."""
    multiplying = around.known.multiplying
    following = around.texts[at + 1 : at + 3]
    text = following[0] if following else "."
    doubling, fold = around.texts[at] in multiplying.doubling, around.texts[at] in multiplying.fold
    asked, drug = around.asked_to_take(_first(around, at)), around.drug_in_clause(at)
    twice = around.texts[at] in around.known.often.twice | around.known.often.thrice
    what = next((step for step, word in enumerate(following, 2) if word in multiplying.what), 0)
    size = 0
    if asked and what:
        size = what
    elif (asked or drug) and following == ["as", "often"] and not _of_others(around, at + 3):
        size = 3
    elif (
        _of_dose(around, _first(around, at), at + 1)
        or (fold and (asked or drug) and text in multiplying.over)
        or (twice and (asked or drug) and text in multiplying.over and _ends_so(around, at + 2))
        or (fold and asked and following == ["more", "than"])
        or (doubling and text in multiplying.doubled and (drug or around.drug_in_reach(at)))
    ):
        size = 2
    elif (doubling and text in multiplying.then and (asked or _or_so(around, at))) or (
        _repeated(around, at)
        or _made_so(around, at)
        or ((asked or drug) and _once_more(around, at))
        or _swallowed_again(around, at)
    ):
        size = 1
    return at + size if size and not around.denied(at) else 0


def _of_drug(around: Meaning, at: int) -> int:
    """The end of `triple your usual insulin`, `two times your morphine`, `to double insulin`; 0 for none."""
    beside, multiplying, moving, timing, place = (
        around.known.beside,
        around.known.multiplying,
        around.known.moving,
        around.known.timing,
        at + 1,
    )
    if around.text(place) not in beside.own:
        told = around.texts[at] in multiplying.doubling and around.text(
            at - 1
        ) in moving.clause_begins | beside.allowing | {"to"}
        return place + 1 if told and place < len(around.row) and _taken(around, at, place) else 0
    between = beside.own | beside.modifiers | timing.daytime
    place = next((far for far in range(place, place + NEAR) if around.text(far) not in between), place)
    taken = place < len(around.row) and _taken(around, at, place) and not _warned_of(around, at, place)
    return place + 1 if taken else 0


def _warned_of(around: Meaning, at: int, drug: int) -> bool:
    """`Doubling your insulin without advice is dangerous`; not `doubling your insulin is safe, not dangerous`."""
    known, place = around.known, drug + 1
    if not around.texts[at].endswith("ing"):
        return False
    while place < drug + NEAR and around.text(place) not in known.beside.being | known.beside.allowing | {"", "."}:
        place += 1
    if around.text(place) not in known.beside.being | known.beside.allowing or "," in around.texts[drug:place]:
        return False
    while around.text(place) in known.beside.being | known.multiplying.warned_with:
        place += 1
    warned = around.phrase(known.harm, place)
    return warned > 0 and around.text(warned) in {"", ".", "\n", "and", "you"}  # not `can kill pain`


def _taken(around: Meaning, at: int, drug: int) -> bool:
    return around.is_drug(drug) and not around.measured(drug) and not around.denied(at)


def share_end(around: Meaning, first: int, end: int) -> int:
    """The end of `50%` in `raise your morphine by 50%`, `30% more of your insulin`; 0 for none."""
    beside, moving = around.known.beside, around.known.moving
    if around.text(end) not in beside.percent:
        return 0
    if around.text(end + 1) in beside.extra:
        at = around.past(end + 2, beside.own | beside.of_drug, 4)
        return end + 1 if around.is_drug(at - 1) and around.asked_to_take(first) else 0
    if around.text(first - 1) != "by":
        return 0
    place, named = first - 2, False
    while place >= 0 and (
        around.is_drug(place) or around.texts[place] in beside.own | beside.dose_names | moving.between
    ):
        named = (
            named or around.texts[place] in beside.dose_names or (around.is_drug(place) and not around.measured(place))
        )
        place -= 1
    begins = place == first - 2 and around.drug_in_clause(first) and around.text(place - 1) in moving.clause_begins
    told = (named or begins) and around.text(place) in moving.dosing | beside.changing | beside.putting
    return end + 1 if told and not around.denied(place) else 0


def times_end(around: Meaning, first: int, end: int) -> int:
    """The end of `x4 the usual dose`; 0 for none."""
    multiplying, beside = around.known.multiplying, around.known.beside
    if around.text(first - 1) not in multiplying.multiplied_by or around.text(end) not in multiplying.multiplied:
        return 0
    place = around.past(end, (beside.modifiers | multiplying.multiplied) - beside.dose_names, 5)
    return place + 1 if around.text(place) in beside.dose_names else 0


def _had(around: Meaning, at: int) -> bool:
    """`have a double dose`."""
    beside = around.known.beside
    return around.text(at - 1) in beside.articles and around.text(at - 2) in beside.having


def _first(around: Meaning, at: int) -> int:
    """The place of the number of `five times`, `two to three times`."""
    if around.texts[at] not in around.known.multiplying.fold:
        return at
    at -= around.text(at - 1) == "more"
    while at and is_number(around.row, at - 1):
        joined = around.text(at - 2) in around.known.beside.joining and at > 2 and is_number(around.row, at - 3)
        at -= 3 if joined else 1
    return at


def _of_dose(around: Meaning, first: int, at: int) -> bool:
    """`200 mg, or twice that`: of the dose that was said last; not `twice that of placebo`, `twice that risk`."""
    beside, multiplying = around.known.beside, around.known.multiplying
    end = at + 1 + (around.text(at + 1) in beside.dose_names | multiplying.much)
    pointed = around.text(at) in beside.pointing and around.text(end) != "of" and around.ends(end)
    compared = around.text(first - 1) in multiplying.compared  # `the pain was twice that with placebo`
    return pointed and not compared and around.dose_lately(first)


def _or_so(around: Meaning, at: int) -> bool:
    """`400 mg or double`."""
    beside, multiplying = around.known.beside, around.known.multiplying
    return around.text(at - 1) in beside.range_to | multiplying.or_so and around.dose_lately(at)


def _made_so(around: Meaning, at: int) -> bool:
    """`400 mg. It can be doubled`, `400 mg, doubled if needed`, `insulin may be doubled`; not `the risk may be`."""
    multiplying, eating, beside = around.known.multiplying, around.known.eating, around.known.beside
    needed = around.texts[at] in multiplying.made_by and around.text(at - 1) in eating.needing
    if not (needed or around.texts[at] in multiplying.made_so) or not around.ends(at + 1):
        return False
    if around.text(at - 1) == ",":
        return around.text(at + 1) in multiplying.then and around.dose_lately(at)
    place = at - 1
    small = (
        beside.allowing
        | beside.passive
        | (eating.needing if needed else frozenset())
        | eating.mostly
        | multiplying.made_so
        | beside.joining
    )
    while place > at - NEAR and (around.text(place) in small or around.text(place).endswith("ly")):
        place -= 1
    if place < 0 or not (needed or not beside.passive.isdisjoint(around.texts[place + 1 : at])):
        return False
    if around.is_drug(place):  # `your morphine may be doubled`
        return not around.measured(place)
    of_dose = around.text(place) in beside.pointing | beside.dose_names or bool(around.unit_at(place))
    return of_dose and around.text(at - 1) == "be" and around.dose_lately(at)


def _once_more(around: Meaning, at: int) -> bool:
    """`as much again`, `the same again`."""
    return (
        around.texts[at] in around.known.summing.again_at_once
        and around.text(at - 1) in around.known.multiplying.as_much
    )


def _swallowed_again(around: Meaning, at: int) -> bool:
    """`swallow it again`, and no more; not `before you take it again`, nor `take it again tomorrow`."""
    multiplying, beside, moving = around.known.multiplying, around.known.beside, around.known.moving
    if around.texts[at] not in around.known.summing.again_at_once or (
        around.text(at + 1) not in multiplying.then_ends | {"", "\n"}
    ):
        return False
    verb = at - 1
    while verb > at - NEAR // 2 and (
        around.text(verb) in beside.pointing | beside.own | beside.dose_names | {"the"} or around.is_drug(verb)
    ):
        verb -= 1
    told = verb < at - 1 and around.text(verb) in multiplying.swallowing
    return told and around.text(verb - 1) in moving.clause_begins | {"", "\n"} and around.drug_in_reach(at)


def _repeated(around: Meaning, at: int) -> bool:
    """`repeat it five times`, `repeated twice`, of a dose or a drug; `do that ten times` of a dose alone."""
    multiplying, often, beside = around.known.multiplying, around.known.often, around.known.beside
    if around.texts[at] not in multiplying.fold | often.twice | often.thrice or not around.ends(at + 1):
        return False
    place = _first(around, at) - 1
    while place >= 0 and (
        around.texts[place] in multiplying.repeated or is_number(around.row, place) or around.is_drug(place)
    ):
        place -= 1
    repeating = around.text(place) in multiplying.repeating
    if not repeating and around.text(place) not in multiplying.doing:
        return False
    dosed = repeating and not beside.dose_names.isdisjoint(around.texts[place:at])
    named = any(map(around.is_drug, range(place, at)))
    return dosed or named or around.dose_lately(place, drug=repeating)


def _ends_so(around: Meaning, at: int) -> bool:
    """Whether `thrice over` ends, or goes on with a time."""
    return around.text(at) in around.known.beside.each | {"at", "in", "on", "", ".", ",", "\n"}


def _of_others(around: Meaning, at: int) -> bool:
    """Whether `twice as often` goes on with `as females`."""
    following = around.texts[at : at + 2]
    return len(following) == 2 and following[0] == "as" and following[1] not in around.known.multiplying.taker
