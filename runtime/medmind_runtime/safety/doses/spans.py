"""Spans of time in words: `an hour`, `half an hour`, `30 minutes`, `two days`.

Knows how they are said. Knows not what is done in one.
"""

from dataclasses import dataclass
from fractions import Fraction

from medmind_runtime.safety.doses.amounts import is_number, read
from medmind_runtime.safety.doses.surroundings import Surroundings


@dataclass(frozen=True)
class Span:
    """Hours, minutes or longer.

    Attributes:
        days: how long; two where it is a range.
        end: the token after it.
        within_a_day: said in hours or minutes.
    """

    days: tuple[Fraction, ...]
    end: int
    within_a_day: bool


def span(around: Surroundings, at: int) -> Span | None:
    """The one that begins at a token."""
    known = around.known
    if at < len(around.row) and is_number(around.row, at):
        amount = read(around.row, at)
        numbers, end = amount.values, amount.end
        end += around.text(end) in known.beside.articles or around.text(end) == "-"  # `half an hour`, `30-minute`
    elif around.text(at) in known.beside.articles:
        numbers, end = (Fraction(1),), at + 1
    else:
        return None
    unit, short = around.text(end), known.often.hours | known.often.minutes
    if unit not in short | known.beside.days or unit not in known.periods or not numbers or min(numbers) <= 0:
        return None
    return Span(tuple(known.periods[unit] * number for number in numbers), end + 1, unit in short)
