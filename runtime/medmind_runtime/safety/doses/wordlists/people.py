"""Who takes it, who asks, and what is asked.

Knows which lists there are; doses.toml has their words, and says above each what it is for.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grown:
    """Words of ages and weights, and of a group that is left out."""

    giving: frozenset[str]
    old: frozenset[str]
    over: frozenset[str]
    under: frozenset[str]
    aged: frozenset[str]
    people: frozenset[str]
    lived: frozenset[str]
    months: frozenset[str]
    weeks: frozenset[str]
    joined: frozenset[str]
    weighing: frozenset[str]
    kilograms: frozenset[str]
    among: frozenset[str]
    faring: frozenset[str]
    exempt: frozenset[str]
    exempt_between: frozenset[str]


@dataclass(frozen=True)
class Asking:
    """Words around the patient of a question."""

    being: frozenset[str]
    person_is: frozenset[str]
    people: frozenset[str]
    still: frozenset[str]
    after_age: frozenset[str]
    expecting: frozenset[str]
    having: frozenset[str]
    between: frozenset[str]
    after_child: frozenset[str]


@dataclass(frozen=True)
class Answering:
    """Questions after a dose, and short answers to them."""

    quantities: frozenset[str]
    whose: frozenset[str]
    no_amount: frozenset[str]
    before: frozenset[str]
    after_amount: frozenset[str]
    after_answer: frozenset[str]
    asking_else: frozenset[str]
    checking: frozenset[str]


@dataclass(frozen=True)
class Keys:
    """A document's keys of a dose, its upper end, times, taking, a drug and other numbers; a table's head."""

    heads: frozenset[str]
    doses: frozenset[str]
    most: frozenset[str]
    times: frozenset[str]
    taking: frozenset[str]
    drugs: frozenset[str]
    other: frozenset[str]
