"""Bare numbers where a dose is begun, changed or judged: `go up to 800`, `aim for 200`, `600 is fine`.

Knows the verb before a number, what stands between them, and who does it; or the judgement behind it. Knows no units
but the one that was named last.
"""

from fractions import Fraction

from medmind_runtime.safety.doses import bare, schedules
from medmind_runtime.safety.doses.amounts import is_number, is_year, read
from medmind_runtime.safety.doses.meaning import Meaning
from medmind_runtime.safety.doses.surroundings import NEAR

_BETWEEN, _LED, _SUBJECT, _SENTENCES = 10, 5, 4, 2
"""Tokens between a verb and its number; of a time before it; before a verb, where its drug stands. A dose is spoken of
in its sentence or the one before."""
_NO_AGE, _NO_COUNT = 120, 10_000
"""Between them is a lone number that may be a dose, where the words around do not say so."""
_OF_MANY = frozenset({"in", "per", "of", "/", "-", "(", "[", "#"})
_SOME = frozenset({"region", "excess", "upwards", "short", "north", "south"})
"""Before an `of` behind which no share follows."""
_FAR_LESS = 10
"""How many times less than a dose a number of days is that is not taken for one."""
_AS_MUCH = 2
"""How many times the one a number may be the other, where both are of one measure: `for 30 seconds; 60 is better`."""


def told(around: Meaning, first: int, end: int) -> bool:
    """Whether a number without a unit is a dose, in an answer that speaks of one."""
    if around.texts[first:end] == ["one"] or not _free(around, first, end):
        return False
    return any(way(around, first, end) for way in (_stepped, _judged, _called, _next, _lone))


def size(around: Meaning, first: int) -> Fraction:
    """In mg, of the unit of mass that was named last before a number: `25 mcg, then 50`; 0 where none was."""
    units = (around.unit_at(place) for place in range(first - 1, -1, -1))
    masses = (found[0].factor for found in units if found and found[0].name == "mg" and found[0].kind == "")
    return next(masses, Fraction(0))


def _free(around: Meaning, first: int, end: int) -> bool:
    """Whether a number counts nothing and is no year, age, temperature or time."""
    moving, value, following = around.known.moving, around.row[first].value, around.text(end)
    up_to = around.texts[max(0, first - 2) : first] == ["up", "to"] and around.text(first - 3) in moving.going
    to_it = up_to or around.text(first - 1) == "at"  # `finish at 1975`
    if following in moving.no_ends or (value is not None and is_year(value) and value % 50 != 0 and not to_it):
        return False
    if not (around.ends(end) or following in moving.goes_on | moving.doing or following.endswith("ly")):
        return False
    if following == "-" and end + 1 < len(around.row) and around.row[end + 1].glued:
        return False
    return not schedules.is_clock(around, first, end) and not bare.is_age(around, first)


def _stepped(around: Meaning, first: int, end: int) -> bool:
    """`start low at 50`, `it may then be raised to 7.5`, `people end up at 12`; not `the score went up to 12`."""
    moving, beside = around.known.moving, around.known.beside
    at = first - 1
    while around.text(at) in moving.nearly:
        at -= 1
    led = around.text(at)
    direct = at - (around.texts[max(0, at - 1) : at + 1] == ["make", "it"])
    if around.text(direct) in moving.direct and _doer(around, direct) and around.ends(end):
        return _last_named(around, first) == "dose"
    if led not in moving.led and around.text(first - 1) != "as":  # `as high as 800`
        return False
    verb = _verb_before(around, at + (led not in moving.led))
    if verb < 0 or not _doer(around, verb) or (around.texts[verb] in moving.aiming and _of_measure(around, verb)):
        return False
    if around.texts[verb] in beside.starting | moving.dosing and around.drug_in_reach(first):
        return True
    if any(map(around.is_taken, range(max(0, verb - _SUBJECT), first))):
        return True
    return led != "from" and _dose_spoken_of(around, first)


def _verb_before(around: Meaning, at: int) -> int:
    """The place of the verb, with nothing but small words, a drug and its dose behind it; below zero for none."""
    beside, moving = around.known.beside, around.known.moving
    found, least = -1, max(0, at - _BETWEEN)
    verbs = beside.starting | moving.dosing | moving.going | moving.setting
    for place in range(at - 1, least - 1, -1):
        text = around.texts[place]
        if text in verbs:
            found = place
        elif found >= 0 or not (
            text in moving.between
            or text.endswith("ly")
            or around.is_drug(place)
            or is_number(around.row, place)
            or around.unit_at(place)
        ):
            break
    return found


def _doer(around: Meaning, verb: int) -> bool:
    """Whether somebody does it, or a drug or its dose is meant; `it` is none where a measure is spoken of."""
    moving, beside = around.known.moving, around.known.beside
    at = verb - 1
    while at >= 0 and (around.texts[at] in moving.helping or around.texts[at].endswith("ly")):
        at -= 1
    text = around.text(at)
    if at < 0 or text == "\n":
        return True
    if text == "and" and at == verb - 1 and around.texts[verb].endswith("ed"):  # `it began with 40 and ended with 36`
        return False
    told_to = around.text(verb - 1) == "to" and not around.denied(verb)
    if told_to or text in moving.doers or around.known.groups.get(text):
        return text not in beside.pointing or not _of_measure(around, at)
    return text in moving.clause_begins or (around.is_drug(at) and not around.measured(at)) or bool(around.unit_at(at))


def _of_measure(around: Meaning, at: int) -> bool:
    """Whether a measure was named before, nearer than a dose."""
    return _last_named(around, at) in {"measure", "count"}


def counts_on(around: Meaning, first: int) -> bool:
    """Whether a number is of the hours and the like before it: `for 5 days; 3 is enough`."""
    return _last_named(around, first) == "count" or _fewer_days(around, first)


def _fewer_days(around: Meaning, first: int) -> bool:
    """`200 mg for 5 days; 3 is enough`: fewer of what was counted last, and far less than the dose."""
    places = (at for at in range(first - 1, max(-1, first - NEAR), -1) if is_number(around.row, at))
    last, before = next(places, -1), next(places, -1)
    if before < 0:
        return False
    value = max(read(around.row, first).values)
    counted, dosed = read(around.row, last), read(around.row, before)
    if around.text(counted.end) not in around.known.beside.days or not counted.values or not dosed.values:
        return False
    found = around.unit_at(dosed.end) if dosed.end < last else None
    mass = found is not None and found[0].name == "mg" and found[0].kind == ""
    return mass and value < min(counted.values) and value * _FAR_LESS <= min(dosed.values)


def _judged(around: Meaning, first: int, end: int) -> bool:
    """`600 is fine`, `800 would be the maximum`, `for strong pain 800 works better`."""
    beside, moving, unitless = around.known.beside, around.known.moving, around.known.unitless
    before = around.text(first - 1)
    if before in beside.numbered | moving.led - {"to", "with"} or (
        first and before not in moving.clause_begins and around.is_name(first - 1)
    ):
        return False
    place = end
    while around.text(place) in (beside.being | unitless.usual | moving.judging_between) - moving.judging:
        place += 1
    if _is_its_dose(around, end):
        return True
    judged = around.text(place) in beside.fitting | moving.judging and place > end
    told = (judged or around.text(end) in moving.doing) and _dose_spoken_of(around, first)
    return told and not _fewer_days(around, first)


def _is_its_dose(around: Meaning, end: int) -> bool:
    """Whether it goes on as `is the usual dose of ibuprofen`, `was what adults took of it`."""
    beside, moving = around.known.beside, around.known.moving
    at = end
    while around.text(at) in beside.being | beside.passive | moving.judging_between:
        at += 1
    if at == end:
        return False
    between = beside.modifiers | beside.fitting | around.known.multiplying.multiplied - beside.dose_names
    named = around.text(around.past(at, between, 4)) in beside.dose_names
    named = named or (around.text(at) == "what" and not beside.taking.isdisjoint(around.texts[at : at + NEAR // 2]))
    return named and (around.drug_ahead(at, NEAR) or around.drug_in_reach(at))


def _called(around: Meaning, first: int, _: int) -> bool:
    """`the target is 500`, `a maximum of 800`."""
    moving, beside = around.known.moving, around.known.beside
    at = first - 1
    while around.text(at) in moving.nearly:
        at -= 1
    being = beside.being | {"are"}
    if around.text(at) not in being | {"of", ":", "="}:
        return False
    while around.text(at) in being | moving.judging_between | {"of", ":", "="}:
        at -= 1
    return around.text(at) in moving.ends and (_last_named(around, first) == "dose" or _of_drug_ahead(around, first))


def _of_drug_ahead(around: Meaning, first: int) -> bool:
    """`a maximum of 80 on oxycodone`, where nothing else was named before."""
    return around.follows(first) and not _last_named(around, first)


def _next(around: Meaning, first: int, end: int) -> bool:
    """`200 mg, then 400, then 800`, `after a week, 25`, `or 10 if it is low`: after a dose, at the end of a clause."""
    moving, place = around.known.moving, first
    if around.text(end) not in moving.clause_signs | {"", "\n"}:
        other = around.text(place - 1) in moving.other_dose and around.text(end) in moving.in_case
        return other and _last_named(around, place) == "dose"
    if around.text(place - 1) in {",", ":"} and not moving.after.isdisjoint(around.clause_before(place)[:_LED]):
        return _dose_spoken_of(around, place)
    while around.text(place - 1) in moving.sequel:
        while around.text(place - 1) in moving.sequel | moving.joined:
            place -= 1
        if place < 1 or around.dose_before(place):
            return place > 0
        if around.texts[place - 1] == ".":
            return _last_named(around, place) == "dose"
        if not is_number(around.row, place - 1):
            return False
        while place and is_number(around.row, place - 1):
            place -= 1
    return place < first and _stepped(around, place, read(around.row, place).end)


def _lone(around: Meaning, first: int, _: int) -> bool:
    """`I'd plump for 2500` where a dose is asked about, `its sweet spot is 2500` of a drug; no age and no year."""
    moving, before, value = around.known.moving, around.text(first - 1), max(read(around.row, first).values)
    small = before in around.known.beside.plain | moving.clause_begins | moving.nearly | _SOME | {""}
    small = small and (before not in _OF_MANY or around.text(first - 2) in _SOME)
    if not _NO_AGE < value <= _NO_COUNT or not small:
        return False
    if not (around.known.measuring.measures | moving.phoning).isdisjoint(around.clause_before(first)):
        return False
    return not _last_named(around, first) and (around.asked or _of_sure_drug(around, first))


def _dose_spoken_of(around: Meaning, first: int) -> bool:
    """Whether a dose was named last, or is asked about, or a drug is spoken of; not where a measure was named."""
    named = _last_named(around, first)
    return named == "dose" or (not named and (around.asked or _of_sure_drug(around, first) or around.follows(first)))


def _of_sure_drug(around: Meaning, first: int) -> bool:
    """Whether a drug, and not what is measured of it, is named before in the clause."""
    places = range(first - len(around.clause_before(first)), first)
    return any(around.known.is_surely_drug(around.texts[at]) and not around.measured(at) for at in places)


def _last_named(around: Meaning, first: int) -> str:
    """What was named last in the sentence of a place, or the one before: a `dose`, a `measure`, a `count`, or nothing.

    A count is a number of hours and the like near to that of the place, in a sentence without a dose before.
    """
    measuring, beside, moving = around.known.measuring, around.known.beside, around.known.moving
    ends, changed, counted = 0, False, False
    for place in range(first - 1, max(-1, first - 4 * NEAR), -1):
        text = around.texts[place]
        ends += text == "."
        if ends == _SENTENCES or (text == "." and counted):
            break
        if text in measuring.measured:
            return "measure"
        if is_number(around.row, place) and (at := read(around.row, place).end) < first:
            found = around.unit_at(at)
            if found and found[0].kind in {"", "form"} and around.means_dose(found[0], place, at + found[1]):
                return "dose"
            counted = counted or (not found and _counts(around, place, at) and _near(around, place, first))
        changed = changed or text in beside.starting | moving.dosing
    if changed and around.drug_in_reach(first):
        return "dose"
    return "count" if counted else ""


def _counts(around: Meaning, first: int, end: int) -> bool:
    """Whether a number has a unit that is no dose's, nor how often one is taken: `for 30 seconds`."""
    known = around.known
    often = around.text(first - 1) in known.often.every | {"per"}
    return around.text(end) in known.beside.counted - known.often.times and not often


def _near(around: Meaning, one: int, other: int) -> bool:
    """Whether two numbers may be of one measure."""
    if not is_number(around.row, other):
        return False
    low, high = sorted((max(read(around.row, one).values), max(read(around.row, other).values)))
    return low > 0 and high <= _AS_MUCH * low
