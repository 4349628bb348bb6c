"""How often, by what happens then: `on the hour`, `hour by hour`, `every time you eat`, `whenever you wake`.

Knows the words around an hour and an occasion. Knows not what is done then.
"""

from fractions import Fraction

from medmind_runtime.safety.doses.amounts import BY_WORD
from medmind_runtime.safety.doses.spacing import MEALS
from medmind_runtime.safety.doses.surroundings import Surroundings

_HOURS = 24
"""Of a day."""


def hourly(around: Surroundings, at: int) -> tuple[tuple[Fraction, ...], int] | None:
    """Times a day of an `hour` and its end: `on the hour`, `on the half hour`, `hour by hour`."""
    often = around.known.often
    if around.text(at) not in often.hours:
        return None
    begin = at - (around.text(at - 1) in around.known.parts)
    if around.text(begin - 1) == "the" and around.text(begin - 2) in {"on", "by"}:
        return (Fraction(_HOURS),), at + 1
    again = around.text(at + 1) in often.by and around.text(at + 2) == around.text(at)
    return ((Fraction(_HOURS),), at + 3) if again else None


def occasion(around: Surroundings, at: int) -> tuple[str, tuple[Fraction, ...], int] | None:
    """The verb, the times a day and the end of `every time you eat`; below zero where nobody can count them."""
    often, place = around.known.often, at + 1
    if around.text(at) in often.every and around.text(place) in often.occasion:
        place += 1
    elif around.text(at) not in often.whenever:
        return None
    verb = around.text(place + 1)
    if around.text(place) not in around.known.moving.doers or verb in often.no_occasion | around.known.beside.taking:
        return None
    if verb in often.eating:
        return "", (Fraction(MEALS),), place + 2
    return verb, (BY_WORD,), place + 2
