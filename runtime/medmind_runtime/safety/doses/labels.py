"""Numbers that name something: `type 2`, `section 3`, the number of a line in a list, a citation, `day 1, 8 and 15`.

Knows the words before them. Knows no doses.
"""

from medmind_runtime.safety.doses.amounts import LARGE, is_number, read
from medmind_runtime.safety.doses.surroundings import Surroundings

_LONGEST_SERIES, _LONGEST_SENTENCE = 12, 40
"""Tokens of `days 1, 8, 15 and 22`; before a number, back to where its sentence begins."""


def is_label(around: Surroundings, at: int, end: int) -> bool:
    """Whether a number names what stands before it, or a line of a list; or is a part of an hour or of people."""
    before = around.text(at - 1)
    if around.texts[end : end + 1] == ["other"] and around.text(end + 1) in around.known.beside.counted:
        return True  # `more than 200 other medicines`
    if before in around.known.beside.passive and around.texts[at : at + 2] == ["one", "of"] and _one_of(around, end):
        return True
    if _of_hour(around, end) or _of_people(around, at, end) or (before in {"to", ","} and _some_of(around, at, end)):
        return True
    if before in around.known.beside.numbered and around.row[at].value is not None:
        return not _measures(around, end)
    if (
        (not at or before == "\n")
        and end == at + 1
        and end < len(around.row)
        and (value := around.row[at].value) is not None
        and value < LARGE
        and around.texts[end] in {".", ")"}
    ):
        answer = around.asked and not at and value != 1  # a list begins with 1
        return around.row[end].glued and not answer
    return _of_days(around, at, end)


def _of_hour(around: Surroundings, end: int) -> bool:
    """`take omeprazole half an hour before breakfast`: it is no dose over an hour."""
    part = around.text(end - 1) in around.known.parts
    return part and around.text(end) == "an" and around.text(end + 1) in around.known.often.hours


def _of_people(around: Surroundings, at: int, end: int) -> bool:
    """`7 in 100 people`: some of them, so fewer than all. `5000 in two patients` is a dose."""
    if around.text(end) != "in" or end + 1 >= len(around.row) or not is_number(around.row, end + 1):
        return False
    some, all_of_them = around.row[at].value, read(around.row, end + 1)
    fewer = some is not None and bool(all_of_them.values) and some < min(all_of_them.values)
    return fewer and around.text(all_of_them.end) in around.known.grown.people


def _some_of(around: Surroundings, at: int, end: int) -> bool:
    """`Of 200 adults on metformin, 12 stopped`, `they gave it to 200`: people, fewer than were counted before."""
    known = around.known
    if around.text(at - 1) == "to":
        return around.is_drug(at - 2) and around.text(at - 3) == "gave" and around.text(end) in {"", ".", ",", "\n"}
    if around.text(end) not in known.grown.faring:
        return False
    first, least = at - 1, max(0, at - _LONGEST_SENTENCE)
    while first > least and around.texts[first - 1] not in {".", "\n"}:
        first -= 1
    first += around.texts[first : first + 2] == ["out", "of"]
    if around.text(first) not in known.grown.among:
        return False
    first += 1 + (around.text(first + 1) in known.beside.articles | {"the"})
    if not is_number(around.row, first):
        return False
    everybody, some = read(around.row, first), read(around.row, at)
    people = not known.grown.people.union(known.groups).isdisjoint(around.texts[everybody.end : everybody.end + 3])
    return people and bool(some.values and everybody.values) and max(some.values) < min(everybody.values)


def _one_of(around: Surroundings, end: int) -> bool:
    """`it is one of 3 steroids`, `one of 5 blood thinners`; not `one of 800 mg`, nor `one of 800 a day`."""
    known, text = around.known, around.text(end)
    counted = text and around.row[end].is_word and not around.unit_at(end) and not known.is_surely_drug(text)
    return bool(counted) and (text not in known.beside.plain or text in known.eating.no_medicine)


def _of_days(around: Surroundings, at: int, end: int) -> bool:
    """`on day 1, 8 and 15`: each is a day, if they rise and the last one is joined to them."""
    beside, row = around.known.beside, around.row
    joins = beside.joining | {","}
    first = at
    while first > max(0, at - _LONGEST_SERIES) and (
        around.texts[first - 1] in joins or row[first - 1].value is not None
    ):
        first -= 1
    if first == at or around.text(first - 1) not in beside.days or around.texts[first] in {"and", ","}:
        return False  # `8 one day and 9 the next`
    if end < len(row) and (around.unit_at(end) or around.text(end) in {":", "="}):
        return False
    while end < len(row) and end < at + _LONGEST_SERIES and (around.texts[end] in joins or is_number(row, end)):
        end += 1
    while around.texts[end - 1] in joins:
        end -= 1
    days = [value for token in row[first:end] if (value := token.value) is not None]
    counted = end < len(row) and around.unit_at(end) is not None
    joined = around.text(end - 2) in beside.joining and days == sorted(set(days)) and not counted
    return joined and all(day.denominator == 1 and day < LARGE for day in days)


def _measures(around: Surroundings, end: int) -> bool:
    """Whether a number that ends here has a unit of mass or volume: `two level 5-ml spoonfuls`."""
    place = around.past(end, frozenset("-"), 1)
    found = around.unit_at(place) if place < len(around.row) else None
    return found is not None and found[0].kind == "" and len(around.texts[place]) > 1


def citation(around: Surroundings, at: int) -> int:
    """The end of `[1, 2]`, unless a unit follows; 0 for no citation."""
    place = at + 1
    while (
        place < len(around.row)
        and place < at + 12
        and (
            (around.texts[place].isdigit() and len(around.texts[place]) < 3)
            or around.texts[place] in {",", "-", "–", "."}
        )
    ):
        place += 1
    if place == at + 1 or place >= len(around.row) or around.texts[place] != "]":
        return 0
    if place + 1 < len(around.row) and (found := around.unit_at(place + 1)) and found[0].kind != "soft":
        return 0
    return place + 1
