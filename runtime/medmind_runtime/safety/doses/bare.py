"""Numbers of a drug without their unit: `Ibuprofen: 800`, `ramipril from ten to five`, `sildenafil at fifty`.

Knows the words between a drug's name and a number. Knows no units, no times of the day, and not how a number is read.
"""

from medmind_runtime.safety.doses.amounts import is_number, is_year, read
from medmind_runtime.safety.doses.drugs import stem
from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings

_MARKS = frozenset("-•+")
_NO_AGE, _STRENGTH = 120, 1000
"""`statins at 40` is an age; this is none any more."""


def is_date(around: Surroundings, first: int) -> bool:
    """Whether a number is a year: `in 2019 metformin was …`, `the 2022 metformin guideline`."""
    if not is_year(around.row[first].value):
        return False
    printed = around.text(around.past(first + 1, frozenset(), 2)) in around.known.unitless.printed
    return around.text(first - 1) in around.known.unitless.dating or (printed and not around.asked_to_take(first))


def of_drug_before(around: Surroundings, drug: int, first: int, end: int) -> bool:
    """Whether a number without a unit is a drug's: `Ibuprofen: 800 every 6 hours`, and not `connexin 26`."""
    unitless, beside, measuring = around.known.unitless, around.known.beside, around.known.measuring
    lead = first - 1 - (around.texts[first - 1] == "a" and around.row[first].value is None)  # `a hundred`
    listed = around.texts[lead] == "," and drug == lead - 1
    listed = listed and (around.text(end) in {"", ".", "\n", ","} or around.text(end) in unitless.routes)
    if around.texts[lead] in beside.about - around.known.moving.nearly - {":", "-", "("} and not listed:
        return False
    fits = around.text(end) in beside.being and not beside.fitting.isdisjoint(around.texts[end + 1 : end + 3])
    fits = fits and around.texts[first - 1] != "-"  # `iodine-131 is a common treatment`
    if around.text(end) in unitless.goes_on and not fits:
        return False
    if around.text(end) == "-" and all(token.glued for token in around.row[end : end + 2]):  # `5-FU`
        return False
    bars = "|" in around.texts[drug + 1 : first]
    cells = [around.texts[at] for at in range(drug + 1, first) if not (bars and around.is_cell(at))]
    between = [text for text in cells if text not in unitless.made_as]
    value = around.row[first].value
    halves = around.texts[first] in around.known.parts and around.text(end) == "the"  # `ramipril halves the risk`
    if is_date(around, first) or halves or around.measured(drug) or _of_tests(around, drug):
        return False
    if not between and value is not None and value.denominator > 1 and around.texts[drug] not in measuring.in_blood:
        return True
    by_route = around.text(end + (around.text(end) == ")")) in unitless.routes
    by_route = by_route or (bars and not unitless.routes.isdisjoint(around.texts[drug + 1 : first]))
    by_route = by_route or (around.text(end + 1) in around.known.often.times and is_number(around.row, end))
    usual = {"is", "are"} & {*between} and not unitless.usual.isdisjoint(between)
    surely = around.known.is_surely_drug(around.texts[drug]) and around.ends(end) and not _in_list(around, first, end)
    ranged = len(read(around.row, first).values) > 1
    told = around.in_clause(first, beside.taking) or around.large(first) or by_route or _schedule(around, first)
    told = told or _fills_line(around, drug, first, end)
    told = told or (bars and any(around.row[at].value and around.large(at) for at in range(drug + 1, first)))
    return bool(told or usual or surely or ranged) and unitless.equals.issuperset(between)


def _of_tests(around: Surroundings, drug: int) -> bool:
    """`Glucose 90, sodium 128`, `the normal range for potassium`: what is measured in blood, beside another measure."""
    measuring, beside = around.known.measuring, around.known.beside
    near = around.texts[max(0, drug - 2 * NEAR) : drug]
    ranged = "range" in near and not measuring.normal.isdisjoint(near)
    tested = around.texts[drug] in measuring.in_blood and (ranged or not measuring.measures.isdisjoint(near))
    return tested and beside.taking.isdisjoint(near)


def _fills_line(around: Surroundings, drug: int, first: int, end: int) -> bool:
    """`- Isosorbide 20`: a line of a list that has a drug and a number; `connexin 26` is a protein."""
    if around.texts[drug].endswith("in"):
        return False
    mark, before = around.text(drug - 1), around.text(drug - 2)
    begins = (
        mark in {"", "\n"} or (mark in _MARKS and before in {"", "\n"}) or (mark in {")", "."} and before.isdigit())
    )
    return drug == first - 1 and begins and around.text(end) in {"", "\n"}


def _in_list(around: Surroundings, first: int, end: int) -> bool:
    """`1. Lisinopril 2. Amlodipine`."""
    value = around.row[first].value
    if value is None or around.text(end) not in {".", ")"}:
        return False
    before = range(max(0, first - NEAR), first)
    return any(around.row[at].value == value - 1 and around.texts[at + 1] == around.text(end) for at in before)


def _schedule(around: Surroundings, first: int) -> bool:
    """`10-0-8-0`: so much at each time of the day; `25 → 50 → 100`."""
    if not around.known.unitless.course_arrows.isdisjoint(around.texts[first + 1 : first + 3]):
        return True
    row = around.row[first : first + 5]
    return len(row) == 5 and all(
        token.text == "-" if place % 2 else token.value is not None for place, token in enumerate(row)
    )


def told(around: Surroundings, first: int, end: int) -> bool:
    """Whether words on both sides make a number a drug's dose."""
    return any(way(around, first, end) for way in (_changed, _fits, _follows))


def _changed(around: Surroundings, first: int, end: int) -> bool:
    """`lower the ramipril from ten to five`, `quetiapine may be pushed from 50 to 300`, `it can go from 25 to 200`."""
    beside, unitless, measuring = around.known.beside, around.known.unitless, around.known.measuring
    if around.texts[first - 1 : first] != ["from"] or not around.ends(end):
        return False
    if not any(text in beside.range_to for text in around.texts[first:end]):
        return False
    at = _before_verbs(around, first - 2, beside.changing | unitless.going)
    done = around.texts[at + 1 : first - 1]
    goes = not unitless.going.isdisjoint(done)
    if at >= 0 and around.is_drug(at) and not goes:
        return around.in_clause(at, beside.changing) and not around.measured(at)
    if at < 0 or not (goes or around.texts[at] in beside.passive):
        return False
    at = _before_verbs(around, at, beside.plain - measuring.measures)
    if at < 0 or not done or not around.is_drug(at) or (goes and around.texts[at] in measuring.in_blood):
        return False
    return not around.measured(at) and _takes(around, at)


def _before_verbs(around: Surroundings, at: int, verbs: frozenset[str]) -> int:
    """The place before these words and adverbs; below zero for none."""
    while at >= 0 and not around.is_drug(at) and (around.texts[at] in verbs or around.texts[at].endswith("ly")):
        at -= 1
    return at


def _takes(around: Surroundings, drug: int) -> bool:
    """Whether it is no vaccine, of which an age is changed."""
    return stem(around.texts[drug]) != "vaccine"


def of_measure(around: Surroundings, first: int) -> bool:
    """Whether it is a measure that is raised: `insulin resistance was increased from 2 to 5`."""
    beside, unitless, measuring = around.known.beside, around.known.unitless, around.known.measuring
    if around.texts[first - 1 : first] not in (["from"], ["to"], ["by"]):
        return False
    verbs = (beside.plain | beside.changing | unitless.going | beside.taking) - measuring.measures
    at = _before_verbs(around, first - 2, verbs)
    return at >= 0 and (around.texts[at] in measuring.measures or (around.is_drug(at) and around.measured(at)))


def _follows(around: Surroundings, first: int, end: int) -> bool:
    """`lisinopril 10, then 20, then 40`, `pregabalin from 75 all the way to 300`."""
    unitless, beside = around.known.unitless, around.known.beside
    ahead = around.past(end, unitless.all_the_way, 5)
    before, last = around.text(first - 2), around.text(first - 1 - (around.text(first - 1) in {":", "of"}))
    back = last in unitless.next or (
        last in {"to", "by"}
        and (before in beside.changing | unitless.going | unitless.all_the_way or before == "followed")
    )
    back = back or (last == "," and first > 1 and is_number(around.row, first - 2))
    leads = around.text(ahead) == "then" or (ahead > end and around.text(ahead) == "to")
    if not (leads or back) or not around.ends(end):
        return False
    drug = around.led_by_drug(
        first,
        unitless.equals | unitless.then_between | beside.changing | unitless.going | unitless.next,
        in_blood=around.text(first - 1) == "then",
    )
    if drug < 0 or not back:
        return drug >= 0 and (unitless.equals | {"from"}).issuperset(around.texts[drug + 1 : first])
    numbers = any(is_number(around.row, at) for at in range(max(0, first - NEAR), first))
    return (
        numbers or around.in_clause(drug, beside.changing) or not beside.changing.isdisjoint(around.texts[drug:first])
    )


def _fits(around: Surroundings, first: int, end: int) -> bool:
    """`sildenafil at fifty is typical`, `allopurinol at 300`; an age is none."""
    before = first - 2
    while before > 0 and around.texts[before] in around.known.unitless.gently:
        before -= 1
    if around.texts[first - 1 : first] != ["at"] or before < 0 or not around.is_drug(before):
        return False
    if before < first - 2:
        return around.ends(end)
    value = around.row[first].value
    if value is not None and value > _NO_AGE:
        return around.ends(end)
    following = around.texts[end : end + 2]
    fitting = following[:1] in (["is"], ["was"]) and around.known.beside.fitting.issuperset(following[1:])
    return (fitting and len(following) == 2) or around.known.often.abbreviated.issuperset(following[:1] or [""])


def is_age(around: Surroundings, first: int) -> bool:
    """`begin statins at 40`: of a kind of drugs it is the age."""
    value, kind = around.row[first].value, around.texts[first - 2] if first > 1 else ""
    small = value is not None and value <= _NO_AGE
    return small and around.texts[first - 1] == "at" and kind.endswith("s") and around.known.is_drug(kind[:-1])


def ratio_end(around: Surroundings, first: int, end: int) -> int:
    """The end of `adrenaline 1:1000`, `insulin to carb ratio 1:12`; 0 for none."""
    unitless, row = around.known.unitless, around.row
    if row[first].value != 1 or around.text(end) != ":" or end + 1 >= len(row) or not is_number(row, end + 1):
        return 0
    other = read(row, end + 1)
    if not other.values or not around.ends(other.end):
        return 0
    strong = other.values[0] >= _STRENGTH and around.led_by_drug(first, unitless.equals) >= 0
    return other.end if strong or (around.in_clause(first, unitless.ratios) and around.drug_in_clause(first)) else 0
