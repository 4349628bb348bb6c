"""Numbers of a drug without their unit: `ramipril from ten to five`, `sildenafil at fifty`, `week 1: 25, week 2: 50`.

Knows the words between a drug's name and a number. Knows no units, and not how a number is read.
"""

from medmind_runtime.safety.doses.amounts import is_number, read
from medmind_runtime.safety.doses.drugs import stem
from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings

_HOURS = 12
_NO_AGE = 120
"""`statins at 40` is an age; this is none any more."""


def of_drug_before(around: Surroundings, drug: int, first: int, end: int) -> bool:
    """Whether a number without a unit is a drug's: `Ibuprofen: 800 every 6 hours`, and not `connexin 26`."""
    beside = around.known.beside
    if around.texts[first - 1] in beside.about - {":", "-", "("} or around.text(end) in beside.goes_on:
        return False
    if around.text(end) == "-" and all(token.glued for token in around.row[end : end + 2]):  # `5-FU`
        return False
    between = [text for text in around.texts[drug + 1 : first] if text not in beside.made_as]
    value = around.row[first].value
    if _measured(around, drug):
        return False
    if not between and value is not None and value.denominator > 1 and around.texts[drug] not in beside.measured:
        return True
    by_route = around.text(end + (around.text(end) == ")")) in beside.routes
    usual = {"is", "are"} & {*between} and not beside.usual.isdisjoint(between)
    surely = around.known.is_surely_drug(around.texts[drug]) and _ends(around, end) and not _in_list(around, first, end)
    ranged = len(read(around.row, first).values) > 1
    told = around.in_clause(first, beside.taking) or around.large(first) or by_route or _schedule(around, first)
    return bool(told or usual or surely or ranged) and beside.equals.issuperset(between)


def _in_list(around: Surroundings, first: int, end: int) -> bool:
    """`1. Lisinopril 2. Amlodipine`."""
    value = around.row[first].value
    if value is None or around.text(end) not in {".", ")"}:
        return False
    before = range(max(0, first - NEAR), first)
    return any(around.row[at].value == value - 1 and around.texts[at + 1] == around.text(end) for at in before)


def _schedule(around: Surroundings, first: int) -> bool:
    """`10-0-8-0`: so much at each time of the day; `25 → 50 → 100`."""
    if not around.known.beside.course_arrows.isdisjoint(around.texts[first + 1 : first + 3]):
        return True
    row = around.row[first : first + 5]
    return len(row) == 5 and all(
        token.text == "-" if place % 2 else token.value is not None for place, token in enumerate(row)
    )


def told(around: Surroundings, first: int, end: int) -> bool:
    """Whether words on both sides make a number a drug's dose."""
    return any(
        way(around, first, end) for way in (_of_course, _changed, _fits, _sits, _opens, _follows, _when, _runs, _scaled)
    )


def _ends(around: Surroundings, end: int) -> bool:
    """Whether nothing follows that a number would count."""
    if end >= len(around.row):
        return True
    text = around.texts[end]
    if text == "per" and around.texts[end + 1 : end + 2] == ["cent"]:
        return False
    return text not in around.known.beside.counted and (
        not around.row[end].is_word or text in around.known.beside.plain or text in around.known.often.abbreviated
    )


def _changed(around: Surroundings, first: int, end: int) -> bool:
    """`lower the ramipril from ten to five`, `quetiapine may be pushed from 50 to 300`, `it can go from 25 to 200`."""
    beside = around.known.beside
    if around.texts[first - 1 : first] != ["from"] or not _ends(around, end):
        return False
    if not any(text in beside.range_to for text in around.texts[first:end]):
        return False
    at = _before_verbs(around, first - 2, beside.changing | beside.going)
    done = around.texts[at + 1 : first - 1]
    goes = not beside.going.isdisjoint(done)
    if at >= 0 and around.is_drug(at) and not goes:
        return around.in_clause(at, beside.changing) and not _measured(around, at)
    if at < 0 or not (goes or around.texts[at] in beside.passive):
        return False
    at = _before_verbs(around, at, beside.plain - beside.measures)
    if at < 0 or not done or not around.is_drug(at) or (goes and around.texts[at] in beside.measured):
        return False
    return not _measured(around, at) and _takes(around, at)


def _before_verbs(around: Surroundings, at: int, verbs: frozenset[str]) -> int:
    """The place before these words and adverbs; below zero for none."""
    while at >= 0 and not around.is_drug(at) and (around.texts[at] in verbs or around.texts[at].endswith("ly")):
        at -= 1
    return at


def _takes(around: Surroundings, drug: int) -> bool:
    """Whether it is no vaccine, of which an age is changed."""
    return stem(around.texts[drug]) != "vaccine"


def _measured(around: Surroundings, drug: int) -> bool:
    """Whether a drug's name is a part of what is measured: `lithium levels`, `the level on heparin`, `serum iron`."""
    beside = around.known.beside
    if not beside.measures.isdisjoint(around.texts[drug + 1 : drug + 2]):
        return True
    at = drug - 1
    while at >= 0 and at > drug - 4 and around.texts[at] in beside.measured_on:
        at -= 1
    return at >= 0 and around.texts[at] in (beside.measures if at < drug - 1 else beside.measured_as)


def of_measure(around: Surroundings, first: int) -> bool:
    """Whether it is a measure that is raised: `insulin resistance was increased from 2 to 5`."""
    beside = around.known.beside
    if around.texts[first - 1 : first] not in (["from"], ["to"], ["by"]):
        return False
    verbs = (beside.plain | beside.changing | beside.going | beside.taking) - beside.measures
    at = _before_verbs(around, first - 2, verbs)
    return at >= 0 and (around.texts[at] in beside.measures or (around.is_drug(at) and _measured(around, at)))


def _led_by_drug(around: Surroundings, first: int, between: frozenset[str]) -> int:
    """The place of the drug before a number, with nothing between but such words, numbers and units; below zero."""
    with_unit = False
    for at in range(first - 1, max(-1, first - 2 * NEAR), -1):
        if around.is_drug(at):
            measured = around.texts[at] in around.known.beside.measured and not with_unit
            return -1 if measured or _measured(around, at) else at
        if around.texts[at] in between or is_number(around.row, at):
            continue
        if not around.unit_at(at):
            return -1
        with_unit = True
    return -1


def _opens(around: Surroundings, first: int, end: int) -> bool:
    """`venlafaxine 37.5 to begin with`, `prednisolone 40 for five days`."""
    opening, words = around.known.opening, tuple(around.texts[end : end + 3])
    between = around.known.beside.then_between
    opens = any(words[: len(phrase)] == phrase for phrase in opening.get(around.text(end), ()))
    if around.text(end) in {"for", "x", "×"} and end + 1 < len(around.row) and is_number(around.row, end + 1):
        after = read(around.row, end + 1).end
        opens = around.text(after) in between or around.texts[after - 2 : after] == ["/", "7"]
    opens = opens or (around.text(end) in between - {","} and not {"x", "×"}.isdisjoint(around.texts[first:end]))
    return opens and _led_by_drug(around, first, around.known.beside.equals | between) >= 0


def _follows(around: Surroundings, first: int, end: int) -> bool:
    """`lisinopril 10, then 20, then 40`, `pregabalin from 75 all the way to 300`."""
    beside = around.known.beside
    ahead = around.past(end, beside.all_the_way, 5)
    before, last = around.text(first - 2), around.text(first - 1 - (around.text(first - 1) in {":", "of"}))
    back = last in beside.next or (
        last in {"to", "by"} and (before in beside.changing | beside.going | beside.all_the_way or before == "followed")
    )
    back = back or (last == "," and first > 1 and is_number(around.row, first - 2))
    leads = around.text(ahead) == "then" or (ahead > end and around.text(ahead) == "to")
    if not (leads or back) or not _ends(around, end):
        return False
    drug = _led_by_drug(
        around, first, beside.equals | beside.then_between | beside.changing | beside.going | beside.next
    )
    if drug < 0 or not back:
        return drug >= 0 and (beside.equals | {"from"}).issuperset(around.texts[drug + 1 : first])
    numbers = any(is_number(around.row, at) for at in range(max(0, first - NEAR), first))
    return (
        numbers or around.in_clause(drug, beside.changing) or not beside.changing.isdisjoint(around.texts[drug:first])
    )


def _sits(around: Surroundings, first: int, end: int) -> bool:
    """`duloxetine starts at 30 and ends at 60`."""
    beside = around.known.beside
    at = first - 2 - (around.text(first - 2) in {"out", "usually"})
    if around.text(first - 1) != "at" or around.text(at) not in beside.sitting or not _ends(around, end):
        return False
    return _led_by_drug(around, first, beside.equals | beside.sitting | {"and", "out"}) >= 0


def _when(around: Surroundings, first: int, end: int) -> bool:
    """`warfarin 5 on weekdays and 7.5 at weekends`."""
    beside = around.known.beside
    place = around.past(end, beside.when_led, 4)
    if place == end or around.text(place) not in beside.when or is_clock(around, first, end):
        return False
    return _led_by_drug(around, first, beside.equals | beside.made_as | beside.when_led | beside.when | {"and"}) >= 0


def _runs(around: Surroundings, first: int, end: int) -> bool:
    """`morphine drip at 2 an hour`."""
    beside, (_, rates) = around.known.beside, around.rates(end)
    return (
        not rates.isdisjoint(around.known.rates.body)
        and _led_by_drug(around, first, beside.equals | beside.running) >= 0
    )


def _scaled(around: Surroundings, first: int, end: int) -> bool:
    """`insulin: 131-180: 2, 181-240: 4`: so much for each range of a measure."""
    row, at = around.row, first - 4
    if at < 0 or around.text(first - 1) not in {":", "="} or around.text(first - 3) not in around.known.beside.range_to:
        return False
    return is_number(row, first - 2) and is_number(row, at) and _ends(around, end) and around.drug_in_clause(at)


def is_clock(around: Surroundings, first: int, end: int) -> bool:
    """`take it at 8 in the morning`."""
    beside, value = around.known.beside, around.row[first].value
    if around.text(first - 1) != "at" or value is None or value > _HOURS or value.denominator > 1:
        return False
    begun = around.in_clause(first, beside.starting | beside.changing)
    return around.text(around.past(end, beside.when_led, 3)) in beside.clock and not begun


def _fits(around: Surroundings, first: int, end: int) -> bool:
    """`sildenafil at fifty is typical`, `allopurinol at 300`; an age is none."""
    if around.texts[first - 1 : first] != ["at"] or first < 2 or not around.is_drug(first - 2):
        return False
    value = around.row[first].value
    if value is not None and value > _NO_AGE:
        return _ends(around, end)
    following = around.texts[end : end + 2]
    fitting = following[:1] in (["is"], ["was"]) and around.known.beside.fitting.issuperset(following[1:])
    return (fitting and len(following) == 2) or around.known.often.abbreviated.issuperset(following[:1] or [""])


def is_age(around: Surroundings, first: int) -> bool:
    """`begin statins at 40`: of a kind of drugs it is the age."""
    value, kind = around.row[first].value, around.texts[first - 2] if first > 1 else ""
    small = value is not None and value <= _NO_AGE
    return small and around.texts[first - 1] == "at" and kind.endswith("s") and around.known.is_drug(kind[:-1])


def _of_course(around: Surroundings, first: int, end: int) -> bool:
    """`Sertraline: wk1 25, wk2 50`: so much in each week."""
    at = first - 1
    if at >= 0 and around.texts[at] in {":", "="}:
        at -= 1
    if at < 1 or around.row[at].value is None or around.texts[at - 1] not in around.known.beside.courses:
        return False
    return _ends(around, end) and around.drug_in_clause(at)
