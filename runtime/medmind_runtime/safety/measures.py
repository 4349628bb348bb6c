"""Numbers that mean something in an emergency: ages, temperatures, counts of tablets, sugar, oxygen, pulse, pressure.

Knows limits and units. Each number found gets a name that patterns use as a list: `<young_infant>`, `<high_fever>`.
"""

from collections.abc import Callable, Sequence, Set

from medmind_runtime.safety.words import BREAK, SENTENCE, Word

NORMAL_DEGREES = "normal_degrees"
NAMES = (
    "young_infant",
    "infant",
    "fever_degrees",
    NORMAL_DEGREES,
    "cold_degrees",
    "many_doses",
    "toxic_grams",
    "extreme_sugar",
    "very_low_oxygen",
    "low_oxygen",
    "extreme_pulse",
    "extreme_pressure",
    "year",
)
_DAYS = {"day": 1.0, "week": 7.0, "wk": 7.0, "month": 30.4, "mo": 30.4, "mth": 30.4, "year": 365.0, "yr": 365.0}
_BABY = {"baby", "babies", "newborn", "infant", "neonate", "bub"}
_CHILD = _BABY | {
    "old",
    "son",
    "daughter",
    "boy",
    "girl",
    "grandson",
    "granddaughter",
    "nephew",
    "niece",
    "twin",
    "twins",
}
_FEVERISH = {"temp", "temperature", "fever", "degrees", "degree", "febrile", "thermometer", "reading", "°", "feverish"}
_DOSES = {"tablet", "tablets", "pill", "pills", "capsule", "capsules", "caplets", "tabs", "painkillers", "doses"}
COUNTED = {
    "paracetamol", "paracetamols", "acetaminophen", "tylenol", "panadol", "ibuprofen", "advil", "nurofen", "aspirin",
    "aspirins", "codamol", "cocodamol", "codeine", "tramadol", "oxycodone", "percocet", "vicodin", "xanax", "valium",
    "diazepam", "zopiclone", "benadryl",
}  # fmt: skip
"""Medicines that are counted without a word for a tablet: "forty paracetamol"; in rules, `<counted_medicines>`."""
_MOST_COUNTED = 70
"""Beyond it, such a number is a strength: 75 mg of aspirin are a tablet."""
_PARACETAMOL = {"paracetamol", "acetaminophen", "tylenol", "panadol", "apap"}
_MOST_GRAMS = 4
"""Of paracetamol in a day (its label, for adults)."""
_SWALLOWED = {"took", "taken", "take", "taking", "swallowed", "ate", "eaten", "downed", "had", "with"}
_PRESCRIBED = {"prescription", "prescribed", "refill", "pack", "packet", "box"}
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
_LATER = {
    "post", "into", "late", "early", "away", "overdue", "past", "pregnant", "out", "since", "after", "off", "clean",
    "sober", "behind", "along", "gestation", "in",
}  # fmt: skip
"""Behind a time that is no age: "he is 2 weeks post surgery"."""
_OWNERS = {"my", "our", "his", "her", "a", "the"}
_YOUNG, _INFANT = 92, 366
"""Days: a fever before the third month's end is an emergency (NICE NG143: 38 °C or higher under 3 months)."""


def name(words: Sequence[Word], at: int) -> str:
    """The name of the number at a place, or an empty text when it is just a number."""
    value = words[at].value
    if value is None:
        return "extreme_pressure" if _pressure(words[at].text) else ""
    around = _near(words, at, 5)
    for found, test in _TESTS:
        if test(value, words, at, around):
            return found
    return ""


def _near(words: Sequence[Word], at: int, reach: int) -> set[str]:
    """The words up to `reach` places away in the same sentence."""
    near: set[str] = set()
    for step in (-1, 1):
        for place in range(at + step, at + step * (reach + 1), step):
            if not 0 <= place < len(words) or words[place].text == SENTENCE:
                break
            near.add(words[place].text)
    return near


def _after(words: Sequence[Word], at: int, count: int) -> list[str]:
    return [word.text for word in words[at + 1 : at + 1 + count]]


def _days(value: float, words: Sequence[Word], at: int) -> float | None:
    """The age that a number and its unit say, in days; None where they are no age."""
    following = _after(words, at, 4)
    unit = following[0].removesuffix("s") if following else ""
    if unit not in _DAYS or "pregnant" in following:
        return None
    before = [word.text for word in words[max(0, at - 4) : at]]
    if "ago" in following[1:2]:
        is_age = not {"born", "birth"}.isdisjoint(before)
    else:
        typed = words[at + 1]
        joined = words[at].end == typed.start and typed.end - typed.start <= len("wks") and unit != "day"
        is_age = _named_after(following) or _named_before(before) or _said(before, following, joined=joined)
    return value * _DAYS[unit] if is_age else None


def _named_after(following: Sequence[str]) -> bool:
    """As "3 weeks old", "of 6 months of age", "9 day newborn"."""
    return "old" in following[1:3] or "age" in following[1:4] or not _CHILD.isdisjoint(following[1:2])


def _named_before(before: Sequence[str]) -> bool:
    """As "aged 10 days", "the baby is 3 weeks", "newborn, 12 days", "our baby of six weeks"."""
    says = before[-1:] in (["is"], ["only"], ["just"], ["at"])
    baby = not _BABY.isdisjoint(before) and (says or not _BABY.isdisjoint(before[-1:]))
    return "aged" in before[-2:] or baby or (before[-1:] == ["of"] and not _BABY.isdisjoint(before[-3:-1]))


def _said(before: Sequence[str], following: Sequence[str], *, joined: bool) -> bool:
    """As "my 6wk", one short piece, and "he is only 8 weeks": of anybody, where nothing follows that is counted."""
    one_piece = joined and not _OWNERS.isdisjoint(before[-1:])
    says = before[-1:] in (["is"], ["only"], ["just"], ["at"]) and not {"he", "she"}.isdisjoint(before[-3:-1])
    return (one_piece or says) and _LATER.isdisjoint(following[1:2])


def _young(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    days = _days(value, words, at)
    return days is not None and days < _YOUNG


def _infant(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    days = _days(value, words, at)
    return days is not None and days < _INFANT


def _degrees(words: Sequence[Word], at: int, around: set[str]) -> bool:
    unit = _after(words, at, 2)
    if _of_a_thing(words, at):
        return False
    return not _FEVERISH.isdisjoint(around) or unit[:1] in (["c"], ["f"], ["celsius"], ["fahrenheit"], ["°"])


def _of_a_thing(words: Sequence[Word], at: int) -> bool:
    """Whether a temperature is of no body: "the bath is at 38", "38 degrees water", but "after the bath she has 38"."""
    for place in range(at - 1, max(-1, at - 8), -1):
        word, before = words[place].text, words[place - 1].text if place else ""
        if word in _LUKEWARM or (word in ("temp", "temperature") and before in _LUKEWARM):
            return True
        if word in _OF_A_BODY:
            return False
    behind = _after(words, at, 3)
    return not _LUKEWARM.isdisjoint(behind) and {"after", "in", "since", "from", BREAK, SENTENCE}.isdisjoint(behind)


def _fever(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    return (38 <= value <= 43 or 100.4 <= value <= 110) and _degrees(words, at, around) and not _is_age(words, at)


def _normal_degrees(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """Neither fever nor, in a newborn, cold (NICE NG194: 36.5 to 37.5 °C); with a decimal, as thermometers show it."""
    shown = "." in words[at].text or "," in words[at].text or " " in words[at].text
    usual = 36.4 <= value < 37.6 if shown else value == 37
    return (usual or 97.5 <= value < 99.7) and _degrees(words, at, around) and not _is_age(words, at)


def _cold(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    low = 25 <= value < 35 or 80 <= value < 95
    return low and not {"temp", "temperature"}.isdisjoint(around) and "body" in around and not _is_age(words, at)


def _is_age(words: Sequence[Word], at: int) -> bool:
    return bool({"year", "years", "yr", "yo", "weeks", "days"}.intersection(_after(words, at, 1)))


def _doses(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    if not _PRESCRIBED.isdisjoint(around) and _SWALLOWED.isdisjoint(around):
        return False
    if not {"mg", "mcg", "g", "ml"}.isdisjoint(_after(words, at, 1)):
        return False
    counted = 8 <= value < 1000 and not _DOSES.isdisjoint(_after(words, at, 4))
    return counted or (8 <= value <= _MOST_COUNTED and not COUNTED.isdisjoint(_after(words, at, 2)))


def _toxic_grams(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """More paracetamol than a day's limit, as "9 grams of acetaminophen" or "12000 mg of tylenol"."""
    unit = _after(words, at, 1)
    grams = value if unit[:1] in (["g"], ["gram"], ["grams"], ["gm"]) else value / 1000 if unit == ["mg"] else 0.0
    return _MOST_GRAMS < grams < 200 and not _PARACETAMOL.isdisjoint(around)


def _is_of(kind: Set[str], words: Sequence[Word], at: int) -> bool:
    """Whether it is a number of that kind: by the nearest name of any before it, or by one behind it.

    A name right behind it counts too ("84 oxygen"), and one farther behind where none stands before.
    """
    if not kind.isdisjoint(_after(words, at, 1)):
        return True
    for place in range(at - 1, max(-1, at - 6), -1):
        if words[place].text == SENTENCE:
            break
        if words[place].text in _NAMED:
            return words[place].text in kind
    return not kind.isdisjoint(_near(words[at:], 0, 5))


def _is_reading(words: Sequence[Word], at: int) -> bool:
    """Whether a number counts nothing and is nobody's age."""
    before = words[at - 1].text if at else ""
    counts = _COUNTS.intersection(_after(words, at, 1))
    return not counts and before not in ("am", "aged", "age", "type", "than", "under", "over", "below", "above")


def _sugar(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    """Below 3.0 or from 20 on in mmol/L; below 54 or from 300 on in mg/dL (ADA, level 2 hypoglycaemia)."""
    if not _is_of(_SUGAR, words, at) or not _is_reading(words, at):
        return False
    return 0.5 <= value < 3 or 20 <= value < 54 or 300 <= value < 2000


def _oxygen(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    beside = not _OXYGEN.isdisjoint(_after(words, at, 2)) or _named_as_oxygen(words, at)  # an age may stand near it
    measured = beside and _is_of(_OXYGEN, words, at) and _AIMED_AT.isdisjoint(around)
    return 30 <= value <= 91 and measured and _is_reading(words, at)


def _very_low_oxygen(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """Below what is aimed at even in COPD, 88 to 92 % (BTS guideline for oxygen); named before it, unlike ages."""
    return value < 88 and _named_as_oxygen(words, at) and _oxygen(value, words, at, around)


def _named_as_oxygen(words: Sequence[Word], at: int) -> bool:
    return not _OXYGEN.isdisjoint(word.text for word in words[max(0, at - 5) : at])


def _pulse(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    heart = (_is_of(_PULSE, words, at) or {"heart", "rate"} <= around) and _is_reading(words, at)
    return heart and (20 <= value <= 38 or (150 <= value <= 300 and _EXERCISE.isdisjoint(around)))


def _pressure(text: str) -> bool:
    """A little above 180, or 120 mmHg or more in the second number (AHA: hypertensive crisis, 180/120)."""
    upper, _, lower = text.partition("/")
    return (
        upper.isdigit() and lower.isdigit() and 60 < int(upper) < 320 and (int(upper) >= 185 or 120 <= int(lower) < 200)
    )


def _pressure_in_words(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    """As "190 over 125": any two such numbers are a pressure."""
    if len(words) <= at + 2 or words[at + 1].text not in ("over", "on") or not words[at + 2].value:
        return False
    return 30 <= (words[at + 2].value or 0) <= value and _pressure(f"{value:.0f}/{words[at + 2].value:.0f}")


def _year(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    return 1900 <= value <= 2100 and len(words[at].text) == 4


_TESTS: tuple[tuple[str, Callable[[float, Sequence[Word], int, set[str]], bool]], ...] = (
    ("young_infant", _young),
    ("infant", _infant),
    ("fever_degrees", _fever),
    (NORMAL_DEGREES, _normal_degrees),
    ("cold_degrees", _cold),
    ("many_doses", _doses),
    ("toxic_grams", _toxic_grams),
    ("extreme_sugar", _sugar),
    ("extreme_pressure", _pressure_in_words),
    ("very_low_oxygen", _very_low_oxygen),
    ("low_oxygen", _oxygen),
    ("extreme_pulse", _pulse),
    ("year", _year),
)
