"""The other lists of words of doses.toml, by their sections; see `beside`. Knows no word of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """What a dose is meant for, and what stands under a laboratory's value.

    Attributes:
        of: the words of each rate, by its name: kg, day, hour, ...
        per, alone: before such a word; instead of one.
        body: the rates without which a dose is another.
        over, laboratory, traces, trace_volumes: of `126 mg/dL` the sign and the volume; units that are a value over
            a `trace_volumes`, too.
        filtered: what a kidney's volume over a minute is of.
        skin: the area under that minute.
        body_weight: what a kilogram is of.
        within_a_day, parts_of_a_day: that a dose is the day's; that it is not.
        within, any, period: around the 24 hours of a day.
    """

    of: dict[str, frozenset[str]]
    per: frozenset[str]
    alone: frozenset[str]
    body: frozenset[str]
    over: frozenset[str]
    laboratory: frozenset[str]
    traces: frozenset[str]
    trace_volumes: frozenset[str]
    filtered: frozenset[str]
    skin: frozenset[str]
    body_weight: frozenset[str]
    within_a_day: frozenset[str]
    parts_of_a_day: frozenset[str]
    within: frozenset[str]
    any: frozenset[str]
    period: frozenset[str]


@dataclass(frozen=True)
class Often:
    """Words of how often something is taken; see doses.toml."""

    every: frozenset[str]
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
    objects: frozenset[str]
    between: frozenset[str]
    the: frozenset[str]
    clock: frozenset[str]
    clock_words: frozenset[str]
    clock_between: frozenset[str]
    by: frozenset[str]
    due: frozenset[str]
    whenever: frozenset[str]
    occasion: frozenset[str]
    eating: frozenset[str]
    no_occasion: frozenset[str]
    else_done: frozenset[str]
    daily: frozenset[str]
    basis: frozenset[str]
    no_often: frozenset[str]
    led: frozenset[str]
    days: frozenset[str]
    week: frozenset[str]
    total: frozenset[str]
    row: frozenset[str]
    gaps: frozenset[str]
    another: frozenset[str]
    further: frozenset[str]
    leading: frozenset[str]
    waiting: frozenset[str]
    not_taken: frozenset[str]
    meal: frozenset[str]
    meals: frozenset[str]
    and_at: frozenset[str]


@dataclass(frozen=True)
class UnitLists:
    """Units that are read unlike others, by their own names; see doses.toml."""

    drugless: frozenset[str]
    of_vaccines: frozenset[str]
    food: frozenset[str]
    loose: frozenset[str]
    loose_measures: frozenset[str]
    pieces: frozenset[str]
    weighed: frozenset[str]
    no_keys: frozenset[str]
    dosed_alone: frozenset[str]
    heaped: frozenset[str]
    poured: frozenset[str]
    liquids: frozenset[str]


@dataclass(frozen=True)
class Keys:
    """Words of a document's keys: of a dose, its upper end, times of the day, taking, a drug, and of other numbers."""

    doses: frozenset[str]
    most: frozenset[str]
    times: frozenset[str]
    taking: frozenset[str]
    drugs: frozenset[str]
    other: frozenset[str]


@dataclass(frozen=True)
class Grown:
    """Words of ages and weights, and of a group that is left out; see doses.toml."""

    old: frozenset[str]
    over: frozenset[str]
    under: frozenset[str]
    aged: frozenset[str]
    people: frozenset[str]
    lived: frozenset[str]
    months: frozenset[str]
    joined: frozenset[str]
    weeks: frozenset[str]
    weighing: frozenset[str]
    kilograms: frozenset[str]
    exempt: frozenset[str]
    exempt_between: frozenset[str]
    giving: frozenset[str]


@dataclass(frozen=True)
class Asking:
    """Words around the patient of a question; see doses.toml."""

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
class NumbersRun:
    """Between the words of one number in other languages, and of which twenties are counted; see doses.toml."""

    between: frozenset[str]
    of_twenties: frozenset[str]


@dataclass(frozen=True)
class Steps:
    """Around a number without its unit where a dose is spoken of; see doses.toml."""

    dosing: frozenset[str]
    going: frozenset[str]
    aiming: frozenset[str]
    between: frozenset[str]
    led: frozenset[str]
    nearly: frozenset[str]
    doers: frozenset[str]
    helping: frozenset[str]
    clause_begins: frozenset[str]
    measured: frozenset[str]
    ends: frozenset[str]
    direct: frozenset[str]
    after: frozenset[str]
    sequel: frozenset[str]
    joined: frozenset[str]
    clause_signs: frozenset[str]
    no_ends: frozenset[str]
    goes_on: frozenset[str]
    judging: frozenset[str]
    judging_between: frozenset[str]
    doing: frozenset[str]


@dataclass(frozen=True)
class Sums:
    """Around doses that are taken together; see doses.toml."""

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


@dataclass(frozen=True)
class Devices:
    """Around what is set, filled or pressed; see doses.toml."""

    setting: frozenset[str]
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
