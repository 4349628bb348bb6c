"""How often, by the clock: `at 8 am, noon and 6 pm`, `at 8, at 12 and at 18 o'clock`, `8:00, 14:00 and 20:00`.

Knows times of the clock. Knows not what is done at one.
"""

from medmind_runtime.safety.doses.surroundings import Surroundings

_HOURS, _MOST, _BETWEEN = 24, 12, 3
"""Of a day; times that are read as one row, and tokens between two of them."""


def times(around: Surroundings, at: int) -> tuple[int, int]:
    """How many times of the clock follow one another here, and where they end; zeros for none."""
    often = around.known.often
    count, place, last, told, last_sure = 0, at, 0, 0, False
    while count < _MOST and (step := _clock(around, place)):
        last, last_sure = step
        told += last_sure or around.text(place - 1) == "at"
        count, place = count + 1, last
        while around.text(place) in often.clock_between and place < last + _BETWEEN:
            place += 1
    known = last_sure or (told == count and around.ends(last))
    return (count, last) if count > 1 and known else (0, 0)


def end(around: Surroundings, at: int) -> int:
    """The end of `13:00`; 0 for none."""
    found = _clock(around, at) if around.text(at + 1) == ":" else None
    return found[0] if found and found[1] else 0


def _clock(around: Surroundings, at: int) -> tuple[int, bool] | None:
    """The end of `8 am`, `8:30`, `noon`, and of an `8` that may be one; whether it is one for sure."""
    often, text = around.known.often, around.text(at)
    if text in often.clock_words:
        return at + 1, True
    value = around.row[at].value if at < len(around.row) else None
    value = around.known.numbers.get(text) if value is None else value
    if value is None or value > _HOURS or value.denominator > 1:
        return None
    minutes = around.row[at + 2] if around.text(at + 1) == ":" and at + 2 < len(around.row) else None
    colon = minutes is not None and minutes.glued and len(minutes.text) == len("00")
    end = at + 1 + 2 * colon
    if around.text(end) in often.clock:
        return end + 1, True
    if colon:
        return end, True
    return (end, False) if around.text(end) in often.clock_between or around.ends(end) else None
