"""Numbers of a drug that have no unit: how they are told, timed, changed and multiplied.

Knows which lists there are; doses.toml has their words, and says above each what it is for.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unitless:
    """Around a number of a drug without its unit."""

    equals: frozenset[str]
    goes_on: frozenset[str]
    dating: frozenset[str]
    printed: frozenset[str]
    going: frozenset[str]
    next: frozenset[str]
    then_between: frozenset[str]
    all_the_way: frozenset[str]
    course_arrows: frozenset[str]
    usual: frozenset[str]
    made_as: frozenset[str]
    routes: frozenset[str]
    gently: frozenset[str]
    ratios: frozenset[str]


@dataclass(frozen=True)
class Timing:
    """Around such a number that has its time, or its person."""

    when_led: frozenset[str]
    when: frozenset[str]
    clock: frozenset[str]
    running: frozenset[str]
    halves: frozenset[str]
    days_to: frozenset[str]
    days_and: frozenset[str]
    days_each: frozenset[str]
    odd: frozenset[str]
    odd_days: frozenset[str]
    courses: frozenset[str]
    bearers: frozenset[str]
    aged_at: frozenset[str]
    lived: frozenset[str]
    daytime: frozenset[str]


@dataclass(frozen=True)
class Moving:
    """Around a number without its unit where a dose is begun, changed or judged."""

    setting: frozenset[str]
    dosing: frozenset[str]
    going: frozenset[str]
    aiming: frozenset[str]
    between: frozenset[str]
    led: frozenset[str]
    phoning: frozenset[str]
    nearly: frozenset[str]
    doers: frozenset[str]
    helping: frozenset[str]
    clause_begins: frozenset[str]
    ends: frozenset[str]
    direct: frozenset[str]
    after: frozenset[str]
    sequel: frozenset[str]
    joined: frozenset[str]
    other_dose: frozenset[str]
    in_case: frozenset[str]
    clause_signs: frozenset[str]
    no_ends: frozenset[str]
    goes_on: frozenset[str]
    judging: frozenset[str]
    judging_between: frozenset[str]
    doing: frozenset[str]


@dataclass(frozen=True)
class Handling:
    """Around what is set, filled or pressed."""

    setting: frozenset[str]
    showing: frozenset[str]
    between: frozenset[str]
    before: frozenset[str]
    things: frozenset[str]
    of_drugs: frozenset[str]
    marks: frozenset[str]
    filling: frozenset[str]
    pressing: frozenset[str]
    pressed: frozenset[str]
    primed: frozenset[str]
    into: frozenset[str]
    one_of: frozenset[str]
    places: frozenset[str]


@dataclass(frozen=True)
class Multiplying:
    """Multiples of a dose."""

    words: frozenset[str]
    fold: frozenset[str]
    doubled: frozenset[str]
    made_so: frozenset[str]
    doubling: frozenset[str]
    as_much: frozenset[str]
    swallowing: frozenset[str]
    then_ends: frozenset[str]
    then: frozenset[str]
    what: frozenset[str]
    doing: frozenset[str]
    if_told: frozenset[str]
    or_so: frozenset[str]
    compared: frozenset[str]
    other_verbs: frozenset[str]
    taker: frozenset[str]
    warned_with: frozenset[str]
    over: frozenset[str]
    repeating: frozenset[str]
    repeated: frozenset[str]
    multiplied_by: frozenset[str]
    multiplied_with: frozenset[str]
    of_person: frozenset[str]
    made_by: frozenset[str]
    multiplied: frozenset[str]
    much: frozenset[str]


@dataclass(frozen=True)
class Limitless:
    """Doses without an end."""

    much: frozenset[str]
    liking: frozenset[str]
    until: frozenset[str]
    holders: frozenset[str]
    whatever: frozenset[str]
    that: frozenset[str]
    left: frozenset[str]
    lasting: frozenset[str]
    stopping: frozenset[str]


@dataclass(frozen=True)
class Summing:
    """Around doses that are taken together."""

    adding: frozenset[str]
    begins: frozenset[str]
    again: frozenset[str]
    joining: frozenset[str]
    between: frozenset[str]
    holding: frozenset[str]
    verbs: frozenset[str]
    behind: frozenset[str]
    again_at_once: frozenset[str]
    timed: frozenset[str]
    lots: frozenset[str]
