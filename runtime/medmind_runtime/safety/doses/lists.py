"""The lists of words of doses.toml, by their sections: what has a name there has it here. Knows no word of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """What stands beside a number or a unit, as lists of words; doses.toml says above each what it is for."""

    links: frozenset[str]
    products: frozenset[str]
    soft: frozenset[str]
    modifiers: frozenset[str]
    extra: frozenset[str]
    picked: frozenset[str]
    taking: frozenset[str]
    drinking: frozenset[str]
    about: frozenset[str]
    articles: frozenset[str]
    each: frozenset[str]
    one: frozenset[str]
    all: frozenset[str]
    vague: frozenset[str]
    ambiguous: frozenset[str]
    no_roman_units: frozenset[str]
    no_romans: frozenset[str]
    multiples: frozenset[str]
    fold: frozenset[str]
    doubled: frozenset[str]
    made_so: frozenset[str]
    doubling: frozenset[str]
    then: frozenset[str]
    what: frozenset[str]
    doing: frozenset[str]
    if_told: frozenset[str]
    or_so: frozenset[str]
    compared: frozenset[str]
    taker: frozenset[str]
    pointing: frozenset[str]
    over: frozenset[str]
    repeating: frozenset[str]
    repeated: frozenset[str]
    no_medicine: frozenset[str]
    counted: frozenset[str]
    squeezed: frozenset[str]
    spread: frozenset[str]
    percent: frozenset[str]
    strengthened: frozenset[str]
    dissolved: frozenset[str]
    set_apart: frozenset[str]
    multiplied_by: frozenset[str]
    of_strength: frozenset[str]
    colours: frozenset[str]
    radiation: frozenset[str]
    quantities: frozenset[str]
    labels: frozenset[str]
    weighing: frozenset[str]
    amounts: frozenset[str]
    dosing: frozenset[str]
    equals: frozenset[str]
    plain: frozenset[str]
    pronouns: frozenset[str]
    skipped: frozenset[str]
    of_drug: frozenset[str]
    of_what: frozenset[str]
    of_it: frozenset[str]
    named_so: frozenset[str]
    before_number: frozenset[str]
    periods: frozenset[str]
    range_to: frozenset[str]
    once: frozenset[str]
    before_drug: frozenset[str]
    before_of: frozenset[str]
    aged: frozenset[str]
    clause_ends: frozenset[str]
    resumes: frozenset[str]
    goes_on: frozenset[str]
    multiplied: frozenset[str]
    much: frozenset[str]
    changing: frozenset[str]
    passive: frozenset[str]
    going: frozenset[str]
    measures: frozenset[str]
    measured_as: frozenset[str]
    measured_on: frozenset[str]
    next: frozenset[str]
    then_between: frozenset[str]
    all_the_way: frozenset[str]
    sitting: frozenset[str]
    when_led: frozenset[str]
    when: frozenset[str]
    clock: frozenset[str]
    starting: frozenset[str]
    usual: frozenset[str]
    running: frozenset[str]
    into: frozenset[str]
    places: frozenset[str]
    made_as: frozenset[str]
    course_arrows: frozenset[str]
    routes: frozenset[str]
    fitting: frozenset[str]
    measured: frozenset[str]
    courses: frozenset[str]
    eaten: frozenset[str]
    dishes: frozenset[str]
    nutrients: frozenset[str]
    holding: frozenset[str]
    held_in: frozenset[str]
    needing: frozenset[str]
    food_sources: frozenset[str]
    finishing: frozenset[str]
    mostly: frozenset[str]
    bodily: frozenset[str]
    bodily_done: frozenset[str]
    drunk_in_units: frozenset[str]
    pieces_of_medicine: frozenset[str]
    food_between: frozenset[str]
    taken_with: frozenset[str]
    cold_packs: frozenset[str]
    days: frozenset[str]
    joining: frozenset[str]
    having: frozenset[str]
    allowing: frozenset[str]
    being: frozenset[str]
    whose: frozenset[str]
    no_amount: frozenset[str]
    answering: frozenset[str]
    after_amount: frozenset[str]
    after_answer: frozenset[str]
    asking_else: frozenset[str]
    checkups: frozenset[str]
    checking: frozenset[str]
    limits: frozenset[str]
    gently: frozenset[str]
    ratios: frozenset[str]
    heads: frozenset[str]
    putting: frozenset[str]
    setting: frozenset[str]
    bearers: frozenset[str]
    own: frozenset[str]
    halving: frozenset[str]
    lived: frozenset[str]
    aged_at: frozenset[str]
    daytime: frozenset[str]


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
    pressing: frozenset[str]
    pressed: frozenset[str]
    primed: frozenset[str]
    else_done: frozenset[str]
    daily: frozenset[str]
    basis: frozenset[str]
    no_often: frozenset[str]
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
