"""Numbers of a drug without their unit, each with its time: `week 1: 25, week 2: 50`, `warfarin 5 on weekdays`.

Knows days, times of the day and courses. Knows no units.
"""

from medmind_runtime.safety.doses import clocks
from medmind_runtime.safety.doses.amounts import is_number, read
from medmind_runtime.safety.doses.spans import span
from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings

_HOURS = 12
_IN_THE = frozenset({"in", "the"})
_WITH_MINUTES = 100
"""From here on a number may be an hour and its minutes: `930`."""
_WEIGHED = frozenset({"kg", "lb"})
_MOST_AT_ONCE = 20
"""Tablets that are taken at once."""
_LONGEST_SERIES = 160
"""Tokens of the numbers before one that a day may stand before."""


def told(around: Surroundings, first: int, end: int) -> bool:
    """Whether a time on one side makes a number a drug's dose."""
    ways = (_of_course, _opens, _when, _listed, _runs, _scaled, _for_each, _halved)
    return any(way(around, first, end) for way in ways)


def _of_course(around: Surroundings, first: int, end: int) -> bool:
    """`Sertraline: wk1 25, wk2 50`: so much in each week."""
    beside, timing = around.known.beside, around.known.timing
    led = around.text(first - 1) in {":", "=", ","}
    at = first - 1 - led
    if at < 1 or around.row[at].value is None or not around.ends(end):
        return False
    series, least = at, max(0, at - _LONGEST_SERIES)
    while series > least and (around.texts[series - 1] in beside.joining or around.row[series - 1].value is not None):
        series -= 1
    if series < at and around.text(series - 1) in beside.days:
        return led and around.drug_named(series)
    return around.texts[at - 1] in timing.courses and around.text(first - 1) != "," and around.drug_in_clause(at)


def _opens(around: Surroundings, first: int, end: int) -> bool:
    """`venlafaxine 37.5 to begin with`, `prednisolone 40 for five days`."""
    unitless, timing = around.known.unitless, around.known.timing
    between = unitless.then_between
    start = end + (around.text(end) == "more")
    phrases = around.known.opening.get(around.text(start), ())
    opens = any(tuple(around.texts[start : start + len(phrase)]) == phrase for phrase in phrases)
    if around.text(end) in {"for", "over", "x", "×"} and end + 1 < len(around.row) and is_number(around.row, end + 1):
        after = read(around.row, end + 1).end
        opens = around.text(after) in between or around.texts[after - 2 : after] == ["/", "7"]
    course = not {"x", "×"}.isdisjoint(around.texts[first:end]) and around.text(end) != ","
    opens = opens or (course and around.text(end) in between)
    return opens and around.led_by_drug(first, unitless.equals | timing.when | between) >= 0


def _when(around: Surroundings, first: int, end: int) -> bool:
    """`warfarin 5 on weekdays and 7.5 at weekends`."""
    beside, timing, unitless = around.known.beside, around.known.timing, around.known.unitless
    place = _timed(around, end)
    if not place or is_clock(around, first, end):
        return False
    if around.in_clause(first, around.known.measuring.measures) and around.phrase(around.known.turns, end):
        return False  # `an INR of 2 one day, 3 the next`
    told = around.drug_in_reach(first) or around.in_clause(first, beside.taking) or around.drug_near(first)
    if (told or _begins_now(around, first)) and _others_timed(around, first, end):
        return True
    return around.text(place) in timing.when and (
        around.led_by_drug(first, unitless.equals | unitless.made_as | timing.when_led | timing.when | {"and"}) >= 0
    )


def _timed(around: Surroundings, end: int) -> int:
    """The place of a day, a time of the day, whom it is for or an age, if it follows; 0 for none."""
    timing, beside = around.known.timing, around.known.beside
    if moment := _moment(around, end + (around.text(end) == "more")) or around.phrase(around.known.turns, end):
        return moment - 1
    place = around.past(end, timing.when_led, 4)
    if place > end and around.text(place) in timing.when:
        return place
    if around.text(end) == "for":
        place = around.past(end + 1, beside.own | {"a", "an"}, 2)
        return place if around.text(place) in timing.bearers else 0
    if around.text(end) not in timing.aged_at:
        return 0
    if around.text(end + 1) in {"", ".", "\n"}:  # `2.5 under two years, 5 above`
        return end
    after = read(around.row, end + 1).end if is_number(around.row, end + 1) else end
    return after if around.text(after) in timing.lived or around.text(end + 2) in timing.lived else 0


def _moment(around: Surroundings, end: int) -> int:
    """The end of `now`, `in an hour`, `two hours later`, `after 30 minutes`; 0 for none."""
    if phrase := around.phrase(around.known.moments, end):
        return phrase
    led = around.text(end) in {"in", "after"}
    found = span(around, end + led)
    if found is None or not found.within_a_day:
        return 0
    return found.end if led or around.text(found.end) in {"later", "after"} else 0


def _begins_now(around: Surroundings, first: int) -> bool:
    """Whether a sentence begins as `2 now and 2 in an hour`: what else is told so?"""
    at = first - len(around.clause_before(first))
    begins = around.text(at - 1) in {"", ".", "\n"} and is_number(around.row, at)
    return begins and _moment(around, read(around.row, at).end) > 0


def _others_timed(around: Surroundings, first: int, end: int) -> bool:
    """Whether another number near has its time, too: `one in the morning, two at night`."""
    near = [*range(max(0, first - NEAR), first), *range(end, min(len(around.row), end + NEAR))]
    return any(is_number(around.row, at) and _timed(around, read(around.row, at).end) > 0 for at in near)


def _listed(around: Surroundings, first: int, end: int) -> bool:
    """`Morning: 2`, `night: 1`, in lines of their own; `warfarin: Mon 5, Tue 7.5`."""
    measuring = around.known.measuring
    if not _heads_line(around, first) or not around.ends(end) or around.in_clause(first, measuring.measures):
        return False
    value = around.row[first].value
    small = value is None or value <= _MOST_AT_ONCE or around.drug_in_clause(first)
    near = [*range(max(0, first - NEAR), first), *range(end, min(len(around.row), end + NEAR))]
    return small and any(is_number(around.row, at) and _heads_line(around, at) for at in near)


def _heads_line(around: Surroundings, first: int) -> bool:
    """Whether a time of the day with its colon, or a list's sign, is all that stands before a number in its line."""
    timing = around.known.timing
    marks = {"", "\n", "-", "•", "+", "|", ",", "."}
    if around.text(first - 1) in timing.odd_days and around.text(first - 2) in timing.odd:  # `odd days 7`
        return around.drug_in_clause(first)
    if around.text(first - 1) in timing.daytime and around.text(first - 2) in marks - {"", "\n", ",", "."}:
        return around.drug_named(first)
    colon = around.text(first - 1) == ":" or (around.text(first - 1) == "|" and around.drug_named(first))
    if around.text(first - 1) in timing.when and around.drug_in_clause(first):
        return True
    return colon and around.text(first - 2) in timing.daytime and around.text(first - 3) in marks


def _runs(around: Surroundings, first: int, end: int) -> bool:
    """`morphine drip at 2 an hour`, `0.9 per kilogram`."""
    unitless, timing, (_, rates) = around.known.unitless, around.known.timing, around.rates(end)
    if not rates.isdisjoint(_WEIGHED):
        return True
    return (
        not rates.isdisjoint(around.known.rates.body)
        and around.led_by_drug(first, unitless.equals | timing.running) >= 0
    )


def _scaled(around: Surroundings, first: int, end: int) -> bool:
    """`insulin: 131-180: 2, 181-240: 4`: so much for each range of a measure."""
    row, at = around.row, first - 4
    if at < 0 or around.text(first - 1) not in {":", "="} or around.text(first - 3) not in around.known.beside.range_to:
        return False
    return (
        is_number(row, first - 2)
        and is_number(row, at)
        and around.ends(end)
        and (around.drug_in_clause(at) or _of_scale(around, at))
    )


def _for_each(around: Surroundings, first: int, end: int) -> bool:
    """`2 for every 50 over target`."""
    each = around.text(end) == "for" and around.text(end + 1) in around.known.beside.each
    return each and end + 2 < len(around.row) and is_number(around.row, end + 2) and around.drug_near(first)


def _of_scale(around: Surroundings, at: int) -> bool:
    """Whether the step before has a unit: `age 2-3: 1 tablet, age 4-5: 1.5`."""
    for place in range(max(1, at - NEAR), at - 1):
        if around.texts[place] == ":" and is_number(around.row, place + 1):
            end = around.past(read(around.row, place + 1).end, around.known.beside.modifiers, 3)
            return end < at and around.unit_at(end) is not None
    return False


def _halved(around: Surroundings, first: int, end: int) -> bool:
    """`lisinopril eighty am, forty pm`: so much in each half of the day."""
    if not no_hour(around, first, end):
        return False
    between = around.known.unitless.equals | around.known.timing.halves
    taken = around.asked_to_take(first) and around.drug_in_reach(first)
    return taken or around.led_by_drug(first, between) >= 0


def no_hour(around: Surroundings, first: int, end: int) -> bool:
    """Whether a number before `am` is too large to be an hour; `at 930 am` is none."""
    halves = around.known.timing.halves
    if halves.isdisjoint(around.texts[end : end + 3]) or around.text(around.past(end, _IN_THE, 2)) not in halves:
        return False
    values = read(around.row, first).values
    largest = max(values, default=0)
    return largest > 2 * _HOURS and not (around.text(first - 1) == "at" and largest >= _WITH_MINUTES)


def is_clock(around: Surroundings, first: int, end: int) -> bool:
    """`take it at 8 in the morning`."""
    beside, timing, value = around.known.beside, around.known.timing, around.row[first].value
    if clocks.times(around, first)[0]:
        return True
    if around.text(first - 1) != "at" or value is None or value > _HOURS or value.denominator > 1:
        return False
    begun = around.in_clause(first, beside.starting | beside.changing)
    return around.text(around.past(end, timing.when_led, 3)) in timing.clock and not begun
