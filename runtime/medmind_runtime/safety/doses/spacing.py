"""How often, without a word of it: `wait an hour between doses`, `repeat after 60 min`, `with breakfast and dinner`.

Knows times, meals and parts of the day. Knows not which drug is meant.
"""

from fractions import Fraction

from medmind_runtime.safety.doses.amounts import is_number, read
from medmind_runtime.safety.doses.spans import span
from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings

Times = tuple[tuple[Fraction, ...], int]
"""Times a day, and where they end."""
MEALS = 3
_AHEAD = 8
"""Tokens after a time in which it is said that something is taken again."""
_MOST = 48
"""Tokens that are read as one row of parts of the day, and before it."""


def between_doses(around: Surroundings, at: int) -> Times | None:
    """`thirty minutes between doses`, `again after one hour`, `another 500 mg two hours later`."""
    pausing, beside = around.known.pausing, around.known.beside
    if (found := span(around, at)) is None:
        return None
    values, end = tuple(1 / days for days in found.days), found.end
    gap = end + (around.text(end) in pausing.gaps)
    piece = _piece(around, around.past(gap + 1, beside.modifiers | beside.each | beside.one, 3))
    if around.text(gap) == "between" and piece:  # `a minute between puffs` is how one takes them
        return (values, gap) if piece == "form" or _of_drug(around, at, end) else None
    pieces = any(_piece(around, place) for place in range(max(0, at - NEAR), at))
    apart = 1 if around.text(end) == "apart" else 2 * (around.texts[end : end + 2] == ["in", "between"])
    if apart and around.drug_in_reach(at) and (pieces or _alone_taken(around, at, end)):
        return values, end + apart
    if not _of_drug(around, at, end):
        return None
    lead = at - 1
    while around.text(lead) in beside.about - pausing.leading | beside.being | {"of", "be"}:
        lead -= 1
    told = around.text(lead) in pausing.gaps
    told = told or (
        not {"is", "of", "be"}.isdisjoint(around.texts[max(0, lead) : at]) and around.in_clause(at, pausing.gaps)
    )
    if gap > end or told:
        return values, gap
    return (values, end) if _again(around, at, end, lead) else None


def _piece(around: Surroundings, at: int) -> str:
    """What kind of unit `doses`, `tablets` (form) or `puffs` (soft) is; empty for another word."""
    found = around.unit_at(at) if at < len(around.row) else None
    return found[0].kind if found and found[0].kind in {"form", "soft"} and len(around.texts[at]) > 1 else ""


def _alone_taken(around: Surroundings, at: int, end: int) -> bool:
    """`take ibuprofen when needed, an hour apart`; not `take iron and calcium an hour apart`."""
    beside, often, begin = around.known.beside, around.known.often, at - len(around.clause_before(at))
    drugs = [place for place in range(begin, at) if around.is_drug(place)]
    joined = any({around.text(place - 1), around.text(place + 1)} & beside.joining for place in drugs)
    taken = around.in_clause(at, beside.taking) and not around.in_clause(at, often.checkups)
    return taken and len(drugs) == 1 and not joined and around.text(end + 1) != "from"


def _of_drug(around: Surroundings, at: int, end: int) -> bool:
    """Whether it is a drug that is meant, and not what is measured or asked after."""
    often, measuring = around.known.often, around.known.measuring
    near = {*around.clause_before(at), *_behind(around, end)}
    if not near.isdisjoint(often.checkups | measuring.measures | around.known.pausing.not_taken):
        return False
    return around.drug_near(at) or around.drug_in_reach(at) or around.drug_far(at)


def _again(around: Surroundings, at: int, end: int, lead: int) -> bool:
    """Whether something is taken again when a time is over."""
    known = around.known
    multiplying, beside, pausing = known.multiplying, known.beside, known.pausing
    before, behind = around.clause_before(at), _behind(around, end)
    again = _repeats(around, at - len(before), at) or _repeats(around, end, end + len(behind))
    repeated = not multiplying.repeating.isdisjoint(before)
    if not again or (around.text(end - 1) in beside.days and not repeated):
        return False
    drug = any(
        around.text(place) in pausing.another and around.is_drug(place - 1) for place in range(max(1, at - NEAR), at)
    )
    measured = any(around.unit_at(place) for place in range(at - len(before), at))
    drug = drug or any(text == "more" and around.is_drug(at + 1) for at, text in enumerate(behind, end))
    if not (repeated or drug or measured or not (beside.taking | beside.having).isdisjoint([*before, *behind])):
        return False
    over = around.text(end) == "later" or (
        around.text(end) == "after" and around.text(end + 1) in beside.pointing | {"", ".", "\n", "the"}
    )
    waits = around.text(end) == "before" and not pausing.waiting.isdisjoint(before)
    not_yet = around.text(lead) == "for" and around.denied(at)
    return over or waits or not_yet or around.text(lead) in pausing.leading | pausing.waiting


def _repeats(around: Surroundings, first: int, end: int) -> bool:
    """Whether one of these words says so: `again`, `a second dose`, `two more`, `then 1 g`."""
    pausing = around.known.pausing
    for place in range(max(0, first), end):
        text = around.texts[place]
        if text in pausing.another or (
            text in pausing.further
            and place + 1 < len(around.row)
            and (_piece(around, place + 1) or around.is_drug(place + 1))
        ):
            return True
        if text == "more" and place and (is_number(around.row, place - 1) or around.is_drug(place + 1)):
            return True
        if text == "then" and place + 1 < len(around.row) and is_number(around.row, place + 1):
            return True
    return False


def _behind(around: Surroundings, end: int) -> list[str]:
    made: list[str] = []
    for text in around.texts[end : end + _AHEAD]:
        if text in {".", "\n"}:
            break
        made.append(text)
    return made


def of_day(around: Surroundings, at: int) -> Times | None:
    """`in the morning, at noon and in the evening`, `with every meal`: as often as there are parts of the day."""
    known = around.known
    often, pausing, parts = known.often, known.pausing, known.parts_of_day
    place = at + (around.text(at) in often.every)
    meal = around.past(place, known.beside.modifiers | {"main"}, 2)
    if of_number := _meals_counted(around, at):
        return of_number
    meals = place > at and around.text(meal) in pausing.meal
    if not meals and around.source and _at_meals(around, at):
        meals, meal = True, at
    named: set[str] = set()
    joined = False
    if meals:
        end = meal + 1
    elif around.text(place) in parts:
        named.add(parts[around.text(place)])
        end = place + 1
    else:
        return None
    place = end
    while place < min(len(around.row), at + _MOST):
        if around.text(place) in parts:
            named.add(parts[around.text(place)])
            place += 1
            end = place
        elif around.text(place) in pausing.and_at:
            joined = joined or around.text(place) in known.beside.joining
            place += 1
        elif is_number(around.row, place):
            place = read(around.row, place).end
        elif named and (found := around.unit_at(place)):
            place += found[1]
        else:
            break
    if meals:
        return (Fraction(MEALS + ("night" in named)),), end
    several = len(named) > 2 or (len(named) == 2 and joined)
    return ((Fraction(len(named)),), end) if several else None


def lead_of_day(around: Surroundings, at: int) -> int:
    """Where `in the` before a part of the day begins."""
    least = max(0, at - _MOST)
    while at > least and around.texts[at - 1] in around.known.pausing.and_at:
        at -= 1
    return at


def _meals_counted(around: Surroundings, at: int) -> Times | None:
    """`at all three meals`."""
    led = around.known.eating.taken_with | {"at", "all", "of"}
    if around.text(at - 1) not in led or at >= len(around.row) or not is_number(around.row, at):
        return None
    amount = read(around.row, at)
    counts = around.text(amount.end) in around.known.pausing.meals and bool(amount.values) and min(amount.values) > 0
    return (amount.values, amount.end + 1) if counts else None


def _at_meals(around: Surroundings, at: int) -> bool:
    """`before meals` in a passage that says not otherwise how often."""
    pausing, often, rates = around.known.pausing, around.known.often, around.known.rates
    led = around.text(at) in pausing.meals and around.text(at - 1) in around.known.eating.taken_with | {"at"}
    others = {*around.clause_before(at)[:NEAR], *_behind(around, at + 1)} & (
        often.times | often.twice | often.thrice | often.once | often.daily | often.bid | often.tid | often.qid
    )
    return led and not others and rates.alone.isdisjoint(around.clause_before(at))
