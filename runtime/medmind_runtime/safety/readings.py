"""What meters show in an emergency: temperature, sugar, oxygen, pulse and pressure; and of which a number tells.

Knows limits, units, and how a reading is named. Each test takes the number's value, the words, its place and the words
around it in the sentence.
"""

from collections.abc import Sequence

from medmind_runtime.safety.words import BREAK, SENTENCE, Word, before, behind

_REACH = 5
"""Words between a number and what names it."""
_FEVERISH = {"temp", "temperature", "fever", "degrees", "degree", "febrile", "thermometer", "reading", "°", "feverish"}
_BY, _TAKEN_AT = (
    {"by", "in", "under", "on", "at", "from"},
    {"ear", "forehead", "armpit", "arm", "bottom", "rectum", "mouth"},
)
"""Where a temperature is taken: "38.2 in the ear"."""
_SUGAR = {"sugar", "sugars", "glucose", "bg", "bgl", "bm", "glucometer", "libre", "dexcom", "cgm"}
_COUNTS = {
    "g", "gram", "grams", "gm", "kg", "oz", "ounce", "ounces", "spoon", "spoons", "teaspoon", "teaspoons", "tsp",
    "tablespoon", "tablespoons", "cube", "cubes", "cup", "cups", "can", "cans", "calorie", "calories", "unit", "units",
    "hour", "hours", "hr", "hrs", "h", "minute", "minutes", "min", "mins", "day", "days", "week", "weeks", "month",
    "months", "year", "years", "yr", "yo", "y", "time", "times", "x", "test", "tests", "reading", "readings", "tablet",
    "tablets", "pill", "pills", "meal", "meals", "kids", "children", "of", "diabetes", "diabetic", "dollars", "pounds",
    "euros", "quid", "hz",
}  # fmt: skip
"""What a number counts that is no reading of a meter: "two hours after", "30 g of sugar", "type 2 diabetes"."""
_OXYGEN = {"oxygen", "spo2", "sats", "sat", "saturation", "oximeter", "o2", "spo"}
BABY = {"baby", "babies", "newborn", "infant", "neonate", "bub"}
CHILD = BABY | {"son", "daughter", "boy", "girl", "twin", "twins"}
_FRAIL = CHILD | {
    "preemie", "toddler", "child", "kid", "weeks", "wk", "months", "mo", "old", "aged", "elderly", "sepsis", "septic",
}  # fmt: skip
"""Where one of these is spoken of, a low temperature may mean something: the very young, the very old, the very ill."""
_SEATED = {"with", "on", "down", "there", "in", "for", "through", "beside", "by", "up", "around"}
_PULSE = {"pulse", "bpm", "heartbeat", "heartrate", "hr"}
_NAMED = _SUGAR | _OXYGEN | _PULSE | {
    "temp", "temperature", "fever", "rate", "t", "p", "pr", "rr", "resps", "bp", "pressure", "map", "gcs", "bmi", "wt",
    "weight", "kg",
}  # fmt: skip
"""What names the kind of the number that follows it, clinicians' shorthand too: "sats 96, P 82"."""
_EXERCISE = {
    "run", "running", "ran", "jog", "jogging", "cycling", "spinning", "swimming", "exercise", "exercising", "workout",
    "training", "gym", "max", "maximum", "sprint", "rowing", "treadmill",
}  # fmt: skip
_AIMED_AT = {"target", "targets", "aim", "aiming", "altitude"}
_LUKEWARM = {
    "water", "bath", "bathwater", "room", "milk", "formula", "oven", "wash", "washed", "washing", "outside", "weather",
    "pool", "kettle", "bottle", "incubator", "fridge", "kittens", "puppies",
}  # fmt: skip
"""What else has a temperature."""
_OF_A_BODY = {
    "fever", "feverish", "temp", "temperature", "rectal", "thermometer", "has", "had", "have", "got", "ran", "running",
    "and", "but", "she", "he", "i", "now", "body", SENTENCE, BREAK,
}  # fmt: skip
"""Between such a thing and a number, this parts them."""


def _degrees(words: Sequence[Word], at: int, around: set[str]) -> bool:
    unit = behind(words, at, 2)
    if _of_a_thing(words, at):
        return False
    taken = not _BY.isdisjoint(unit[:1]) and not _TAKEN_AT.isdisjoint(behind(words, at, 4))
    return taken or not _FEVERISH.isdisjoint(around) or unit[:1] in (["c"], ["f"], ["celsius"], ["fahrenheit"], ["°"])


def _of_a_thing(words: Sequence[Word], at: int) -> bool:
    """Whether a temperature is of no body: "the bath is at 38", "38 degrees water", but "after the bath she has 38"."""
    for place in range(at - 1, max(-1, at - 8), -1):
        word, previous = words[place].text, words[place - 1].text if place else ""
        if word in _LUKEWARM or (word in ("temp", "temperature") and previous in _LUKEWARM):
            return True
        if word in _OF_A_BODY:
            return False
    following = behind(words, at, 3)
    return not _LUKEWARM.isdisjoint(following) and {"after", "in", "since", "from", BREAK}.isdisjoint(following)


def fever(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """From 38 °C or 100.4 °F on."""
    return (38 <= value <= 43 or 100.4 <= value <= 110) and _degrees(words, at, around) and not _is_age(words, at)


def normal_degrees(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """Neither fever nor cold; with a decimal, as thermometers show it.

    In a newborn that is 36.5 to 37.5 °C (NICE NG194); where no child is spoken of, 36 °C is normal too.
    """
    shown = "." in words[at].text or "," in words[at].text or " " in words[at].text
    grown = _FRAIL.isdisjoint(word.text for word in words)
    usual = (36.0 if grown else 36.4) <= value < 37.6 if shown else value == 37
    return (
        (usual or (96.8 if grown else 97.5) <= value < 99.7) and _degrees(words, at, around) and not _is_age(words, at)
    )


def cold_degrees(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """Below 35 °C or 95 °F, said of a body."""
    low = 25 <= value < 35 or 80 <= value < 95
    return low and not {"temp", "temperature"}.isdisjoint(around) and "body" in around and not _is_age(words, at)


def _is_age(words: Sequence[Word], at: int) -> bool:
    return bool({"year", "years", "yr", "yo", "weeks", "days"}.intersection(behind(words, at, 1)))


def _named(words: Sequence[Word], at: int) -> tuple[str, int]:
    """What names the kind of a number, and how many words behind it that stands; below 0, how many before it.

    Right behind it ("84 oxygen") if that is not the name of a number of its own; else the nearest before it; else the
    nearest behind it. Nothing, and 0, where none stands in the sentence.
    """
    following = behind(words, at, _REACH)
    right = [] if len(words) > at + 2 and words[at + 2].value is not None else following[:1]
    beside = [(text, 1) for text in right]
    beside += [(text, -place) for place, text in enumerate(before(words, at, _REACH), 1)]
    beside += [(text, place) for place, text in enumerate(following, 1)]
    return next((one for one in beside if one[0] in _NAMED and not _is_seated(words, at + one[1])), ("", 0))


def _is_seated(words: Sequence[Word], place: int) -> bool:
    """Whether "sat" is no saturation there: "I sat with 31 of them"."""
    return words[place].text == "sat" and not _SEATED.isdisjoint(behind(words, place, 1))


def _is_reading(words: Sequence[Word], at: int) -> bool:
    """Whether a number counts nothing and is nobody's age."""
    previous = words[at - 1].text if at else ""
    counts = _COUNTS.intersection(behind(words, at, 1))
    return not counts and previous not in ("am", "aged", "age", "type", "than", "under", "over", "below", "above")


def extreme_sugar(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    """Below 3.0 or from 20 on in mmol/L; below 54 or from 300 on in mg/dL (ADA, level 2 hypoglycaemia)."""
    if _named(words, at)[0] not in _SUGAR or not _is_reading(words, at):
        return False
    return 0.5 <= value < 3 or 20 <= value < 54 or 300 <= value < 2000


def low_oxygen(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """Up to 91 %."""
    named, place = _named(words, at)
    measured = named in _OXYGEN and place <= 2 and _AIMED_AT.isdisjoint(around)  # an age may stand farther before it
    return 30 <= value <= 91 and measured and _is_reading(words, at)


def very_low_oxygen(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """Below what is aimed at even in COPD, 88 to 92 % (BTS guideline for oxygen); named before it, unlike ages."""
    return value < 88 and _named(words, at)[1] < 0 and low_oxygen(value, words, at, around)


def extreme_pulse(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """Up to 38 beats a minute; from 150 on without exercise."""
    heart = (_named(words, at)[0] in _PULSE or {"heart", "rate"} <= around) and _is_reading(words, at)
    return heart and (20 <= value <= 38 or (150 <= value <= 300 and _EXERCISE.isdisjoint(around)))


def extreme_pressure(text: str) -> bool:
    """A little above 180, or 120 mmHg or more in the second number (AHA: hypertensive crisis, 180/120)."""
    upper, _, lower = text.partition("/")
    return (
        upper.isdigit() and lower.isdigit() and 60 < int(upper) < 320 and (int(upper) >= 185 or 120 <= int(lower) < 200)
    )


def extreme_pressure_in_words(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    """As "190 over 125": any two such numbers are a pressure."""
    if len(words) <= at + 2 or words[at + 1].text not in ("over", "on") or not words[at + 2].value:
        return False
    return 30 <= (words[at + 2].value or 0) <= value and extreme_pressure(f"{value:.0f}/{words[at + 2].value:.0f}")
