"""How often, by the clock: `at 8 am, noon and 6 pm`, `at 8, at 12 and at 18 o'clock`, `8:00, 14:00 and 20:00`.

Knows times of the clock. Knows not what is done at one.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.surroundings import Surroundings

_HOURS, _MOST, _BETWEEN = 24, 12, 3
"""Of a day; times that are read as one row, and tokens between two of them."""


def any_minutes(row: Sequence[Token], texts: Sequence[str]) -> bool:
    """Whether a text may have an `8:00`."""
    if ":" not in texts:
        return False
    return any(token.glued and token.value is not None and before.text == ":" for before, token in pairwise(row))


def times(around: Surroundings, at: int) -> tuple[int, int]:
    """How many times of the clock follow one another here, and where they end; zeros for none. Hour after hour is
    hourly, for how many hours be it.
    """
    between = around.known.often.clock_between
    count, place, last, told, last_sure, sure = 0, at, 0, 0, False, False
    hours: list[Fraction] = []
    while count < _MOST and (step := _clock(around, place)):
        last, last_sure = step
        hours += filter(None, [_hour(around, place)])
        sure = sure or last_sure
        told += last_sure or around.text(place - 1) == "at"
        count, place = count + 1, last
        while around.text(place) in between and place < last + _BETWEEN:
            place += 1
        if place == last:
            break
    listed = sure and around.text(at - 1) == "at" and (last >= len(around.row) or not around.unit_at(last))
    known = count > 1 and (last_sure or ((told == count or listed) and around.ends(last)))
    hourly = count > 2 and len(hours) == count and all(after - before == 1 for before, after in pairwise(hours))
    return (_HOURS if hourly else count, last) if known else (0, 0)


def end(around: Surroundings, at: int) -> int:
    """The end of `13:00`; 0 for none."""
    found = _clock(around, at) if around.text(at + 1) == ":" else None
    return found[0] if found and found[1] else 0


def _clock(around: Surroundings, at: int) -> tuple[int, bool] | None:
    """The end of `8 am`, `8:30`, `noon`, and of an `8` that may be one; whether it is one for sure."""
    if at >= len(around.row):
        return None
    often, text, value = around.known.often, around.texts[at], around.row[at].value
    if value is None:
        if text in often.clock_words:
            return at + 1, True
        value = around.known.numbers.get(text)
    if value is None or value > _HOURS or value.denominator > 1:
        return None
    last = at + 1 + 2 * _minutes(around, at + 1)
    if around.text(last) in often.clock:
        return last + 1, True
    return last, last > at + 1


def _hour(around: Surroundings, at: int) -> Fraction | None:
    """Of a time in figures or as a number's word."""
    value = around.row[at].value
    return around.known.numbers.get(around.texts[at]) if value is None else value


def _minutes(around: Surroundings, at: int) -> bool:
    """Whether the `:00` of `8:00` stands here."""
    if around.text(at) != ":" or at + 1 >= len(around.row):
        return False
    token = around.row[at + 1]
    return token.glued and token.value is not None and len(token.text) == len("00")
