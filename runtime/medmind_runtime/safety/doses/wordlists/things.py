"""Drugs, and what is no drug: what is given, eaten and measured.

Knows which lists there are; doses.toml has their words, and says above each what it is for.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Naming:
    """Around a drug's name, and where what is said of it ends."""

    pronouns: frozenset[str]
    named_so: frozenset[str]
    before_number: frozenset[str]
    before_drug: frozenset[str]
    before_of: frozenset[str]
    aged: frozenset[str]
    clause_ends: frozenset[str]
    resumes: frozenset[str]


@dataclass(frozen=True)
class Preparations:
    """What a drug is given as, and where it is put."""

    squeezed: frozenset[str]
    spread: frozenset[str]
    strengthened: frozenset[str]
    dissolved: frozenset[str]
    of_strength: frozenset[str]
    into: frozenset[str]
    places: frozenset[str]
    finishing: frozenset[str]


@dataclass(frozen=True)
class Eating:
    """Food and drink, and what a body holds."""

    giving: frozenset[str]
    drinking: frozenset[str]
    no_medicine: frozenset[str]
    of_what: frozenset[str]
    eaten: frozenset[str]
    held_in: frozenset[str]
    dishes: frozenset[str]
    nutrients: frozenset[str]
    holding: frozenset[str]
    bodily: frozenset[str]
    bodily_done: frozenset[str]
    needing: frozenset[str]
    food_sources: frozenset[str]
    mostly: frozenset[str]
    pieces_of_medicine: frozenset[str]
    drunk_in_units: frozenset[str]
    food_between: frozenset[str]
    taken_with: frozenset[str]


@dataclass(frozen=True)
class Measuring:
    """What is measured and is none of a drug's doses."""

    measures: frozenset[str]
    measured_as: frozenset[str]
    normal: frozenset[str]
    measured_on: frozenset[str]
    in_blood: frozenset[str]
    measured: frozenset[str]
