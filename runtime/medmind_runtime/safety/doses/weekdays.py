"""How often, by the days of a week: `on weekdays`, `on Mondays and Thursdays`, `Monday to Friday`.

Knows the days' names. A single day, `on Monday`, is a date. Knows not what is done on one.
"""

from fractions import Fraction

from medmind_runtime.safety.doses.surroundings import Surroundings

_WEEK = 7
_MOST = 24
"""Tokens that are read as one row of days."""


def days(around: Surroundings, at: int) -> tuple[tuple[Fraction, ...], int] | None:
    """Times a day, and where the days end that begin here."""
    known = around.known
    if around.text(at) not in known.weekdays:
        return None
    named: set[int] = set()
    before, end, place, to = 0, at, at, False
    while place < min(len(around.row), at + _MOST):
        text = around.texts[place]
        if own := known.weekdays.get(text):
            named |= own | (_between(before, min(own)) if to else set())
            before, end, to = max(own), place + 1, False
        elif text in known.timing.days_to:
            to = True
        elif text not in known.timing.days_and:
            break
        place += 1
    often = around.text(at) in known.timing.days_each or around.text(at - 1) in known.often.every
    return ((Fraction(len(named), _WEEK),), end) if often or len(named) > 1 else None


def _between(first: int, last: int) -> set[int]:
    """The days from one to another, be it over the end of a week."""
    return {(first + step) % _WEEK for step in range((last - first) % _WEEK)}
