"""What stands around numbers and units.

Knows which lists there are; doses.toml has their words, and says above each what it is for.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """What stands around any number, unit or drug."""

    links: frozenset[str]
    products: frozenset[str]
    modifiers: frozenset[str]
    extra: frozenset[str]
    taking: frozenset[str]
    about: frozenset[str]
    articles: frozenset[str]
    each: frozenset[str]
    one: frozenset[str]
    all: frozenset[str]
    vague: frozenset[str]
    pointing: frozenset[str]
    counted: frozenset[str]
    percent: frozenset[str]
    set_apart: frozenset[str]
    numbered: frozenset[str]
    dose_names: frozenset[str]
    plain: frozenset[str]
    of_drug: frozenset[str]
    range_to: frozenset[str]
    changing: frozenset[str]
    passive: frozenset[str]
    harming: frozenset[str]
    starting: frozenset[str]
    fitting: frozenset[str]
    days: frozenset[str]
    joining: frozenset[str]
    having: frozenset[str]
    allowing: frozenset[str]
    being: frozenset[str]
    putting: frozenset[str]
    own: frozenset[str]


@dataclass(frozen=True)
class UnitWords:
    """Around a number and its unit."""

    soft: frozenset[str]
    picked: frozenset[str]
    colours: frozenset[str]
    radiation: frozenset[str]
    weighing: frozenset[str]
    dosing: frozenset[str]
    skipped: frozenset[str]
    of_it: frozenset[str]
    periods: frozenset[str]
    once: frozenset[str]
    cold_packs: frozenset[str]
    limits: frozenset[str]


@dataclass(frozen=True)
class UnitLists:
    """Units that are read unlike others, by their own names."""

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
    by_the: frozenset[str]
    poured: frozenset[str]
    liquids: frozenset[str]


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
class Foreign:
    """Numbers in other languages, and Roman ones."""

    between: frozenset[str]
    of_twenties: frozenset[str]
    ambiguous: frozenset[str]
    no_roman_units: frozenset[str]
    no_romans: frozenset[str]
