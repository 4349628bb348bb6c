"""How often something is taken.

Knows which lists there are; doses.toml has their words, and says above each what it is for.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Often:
    """How often something is taken."""

    checkups: frozenset[str]
    every: frozenset[str]
    the: frozenset[str]
    q: frozenset[str]
    hours: frozenset[str]
    minutes: frozenset[str]
    abbreviated: frozenset[str]
    bid: frozenset[str]
    tid: frozenset[str]
    qid: frozenset[str]
    hourly: frozenset[str]
    times: frozenset[str]
    twice: frozenset[str]
    thrice: frozenset[str]
    per: frozenset[str]
    day: frozenset[str]
    once: frozenset[str]
    other: frozenset[str]
    alternate: frozenset[str]
    ordinals: frozenset[str]
    after_digits: frozenset[str]
    alone: frozenset[str]
    daily: frozenset[str]
    led: frozenset[str]
    no_often: frozenset[str]
    basis: frozenset[str]
    days: frozenset[str]
    week: frozenset[str]
    total: frozenset[str]
    row: frozenset[str]
    clock: frozenset[str]
    clock_words: frozenset[str]
    clock_between: frozenset[str]
    in_case: frozenset[str]
    happening: frozenset[str]
    else_done: frozenset[str]
    by: frozenset[str]
    due: frozenset[str]
    whenever: frozenset[str]
    occasion: frozenset[str]
    eating: frozenset[str]
    no_occasion: frozenset[str]
    objects: frozenset[str]
    between: frozenset[str]


@dataclass(frozen=True)
class Pausing:
    """What stands between two doses, and parts of the day."""

    gaps: frozenset[str]
    another: frozenset[str]
    further: frozenset[str]
    leading: frozenset[str]
    waiting: frozenset[str]
    not_taken: frozenset[str]
    meal: frozenset[str]
    meals: frozenset[str]
    and_at: frozenset[str]
