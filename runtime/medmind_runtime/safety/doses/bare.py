"""Numbers of a drug without their unit: `ramipril from ten to five`, `sildenafil at fifty`, `week 1: 25, week 2: 50`.

Knows the words between a drug's name and a number. Knows no units, and not how a number is read.
"""

from medmind_runtime.safety.doses.drugs import stem
from medmind_runtime.safety.doses.surroundings import Surroundings

_NO_AGE = 120
"""`statins at 40` is an age; this is none any more."""


def of_drug_before(around: Surroundings, drug: int, first: int, following: list[str]) -> bool:
    """Whether a number without a unit is a drug's: `Ibuprofen: 800 every 6 hours`, and not `connexin 26`."""
    beside = around.known.beside
    if around.texts[first - 1] in beside.about - {":", "-", "("} or (following and following[0] in beside.goes_on):
        return False
    between = around.texts[drug + 1 : first]
    value = around.row[first].value
    if not between and value is not None and value.denominator > 1 and around.texts[drug] not in beside.measured:
        return True
    dose = around.in_clause(first, beside.taking) or around.large(first) or _schedule(around, first)
    return dose and beside.equals.issuperset(between)


def _schedule(around: Surroundings, first: int) -> bool:
    """`10-0-8-0`: so much at each time of the day."""
    row = around.row[first : first + 5]
    return len(row) == 5 and all(
        token.text == "-" if place % 2 else token.value is not None for place, token in enumerate(row)
    )


def told(around: Surroundings, first: int, end: int) -> bool:
    """Whether words on both sides make a number a drug's dose."""
    return _of_course(around, first, end) or _changed(around, first, end) or _fits(around, first, end)


def _ends(around: Surroundings, end: int) -> bool:
    """Whether nothing follows that a number would count."""
    if end >= len(around.row):
        return True
    text = around.texts[end]
    return text not in around.known.beside.counted and (
        not around.row[end].is_word or text in around.known.beside.plain or text in around.known.often.abbreviated
    )


def _changed(around: Surroundings, first: int, end: int) -> bool:
    """`lower the ramipril from ten to five`, `quetiapine may be pushed from 50 to 300`."""
    beside = around.known.beside
    if around.texts[first - 1 : first] != ["from"] or not _ends(around, end) or around.texts[end : end + 1] == ["%"]:
        return False
    if not any(text in beside.range_to for text in around.texts[first:end]):
        return False
    at = first - 2
    done = False
    while at >= 0 and (around.texts[at] in beside.changing or around.texts[at].endswith("ly")):
        done = done or around.texts[at] in beside.changing
        at -= 1
    if at < 0:
        return False
    if around.is_drug(at):
        return around.in_clause(at, beside.changing)
    if not done:
        return False
    passive = around.texts[at] in beside.passive
    while at >= 0 and not around.is_drug(at) and around.texts[at] in beside.plain:
        at -= 1
    return passive and at >= 0 and around.is_drug(at) and stem(around.texts[at]) != "vaccine"


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
