"""Numbers that mean something in an emergency: ages, temperatures, counts of tablets, sugar, oxygen, pulse, pressure.

Knows limits and units. Each number found gets a name that patterns use as a list: `<young_infant>`, `<high_fever>`.
"""

from collections.abc import Callable, Sequence

from medmind_runtime.safety.words import SENTENCE, Word

NAMES = (
    "young_infant",
    "infant",
    "fever_degrees",
    "cold_degrees",
    "many_doses",
    "extreme_sugar",
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
_COUNTED = {
    "paracetamol", "paracetamols", "acetaminophen", "tylenol", "panadol", "ibuprofen", "advil", "nurofen", "aspirin",
    "aspirins", "codamol", "cocodamol", "codeine", "tramadol", "oxycodone", "percocet", "vicodin", "xanax", "valium",
    "diazepam", "zopiclone", "benadryl",
}  # fmt: skip
"""Medicines that are counted without a word for a tablet: "forty paracetamol"."""
_MOST_COUNTED = 70
"""Beyond it, such a number is a strength: 75 mg of aspirin are a tablet."""
_SUGAR = {"sugar", "sugars", "glucose", "bg", "bgl", "bm"}
_OXYGEN = {"oxygen", "spo2", "sats", "sat", "saturation", "oximeter", "o2", "spo"}
_PULSE = {"pulse", "bpm", "heartbeat", "heartrate", "hr"}
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
    if not following:
        return None
    unit = following[0].removesuffix("s")
    if unit not in _DAYS:
        return None
    before = [word.text for word in words[max(0, at - 4) : at]]
    of_age = "old" in following[1:3] or "age" in following[1:4] or (following[1:2] and following[1] in _CHILD)
    is_child = "aged" in before[-2:] or (before[-1:] in (["is"], ["only"], ["just"]) and not _BABY.isdisjoint(before))
    named = bool(_BABY.intersection(before[-1:])) or (before[-1:] == ["at"] and "baby" in before)
    gone = "ago" in following[1:2] or "pregnant" in following
    return None if gone or not (of_age or is_child or named) else value * _DAYS[unit]


def _young(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    days = _days(value, words, at)
    return days is not None and days < _YOUNG


def _infant(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    days = _days(value, words, at)
    return days is not None and days < _INFANT


def _degrees(words: Sequence[Word], at: int, around: set[str]) -> bool:
    unit = _after(words, at, 2)
    return not _FEVERISH.isdisjoint(around) or unit[:1] in (["c"], ["f"], ["celsius"], ["fahrenheit"], ["°"])


def _fever(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    return (38 <= value <= 43 or 100.4 <= value <= 110) and _degrees(words, at, around) and not _is_age(words, at)


def _cold(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    low = 25 <= value < 35 or 80 <= value < 95
    return low and not {"temp", "temperature"}.isdisjoint(around) and "body" in around and not _is_age(words, at)


def _is_age(words: Sequence[Word], at: int) -> bool:
    return bool({"year", "years", "yr", "yo", "weeks", "days"}.intersection(_after(words, at, 1)))


def _doses(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    counted = 8 <= value < 1000 and not _DOSES.isdisjoint(_after(words, at, 4))
    return counted or (8 <= value <= _MOST_COUNTED and not _COUNTED.isdisjoint(_after(words, at, 2)))


def _sugar(value: float, _: Sequence[Word], __: int, around: set[str]) -> bool:
    """Below 3.0 or from 20 on in mmol/L; below 54 or from 300 on in mg/dL (ADA, level 2 hypoglycaemia)."""
    if _SUGAR.isdisjoint(around):
        return False
    return 0.5 <= value < 3 or 20 <= value < 54 or 300 <= value < 2000


def _oxygen(value: float, _: Sequence[Word], __: int, around: set[str]) -> bool:
    return 50 <= value <= 91 and not _OXYGEN.isdisjoint(around)


def _pulse(value: float, _: Sequence[Word], __: int, around: set[str]) -> bool:
    heart = not _PULSE.isdisjoint(around) or {"heart", "rate"} <= around
    return heart and (150 <= value <= 300 or 20 <= value <= 38)


def _pressure(text: str) -> bool:
    """180/120 mmHg or more in either number (AHA: hypertensive crisis)."""
    upper, _, lower = text.partition("/")
    return (
        upper.isdigit() and lower.isdigit() and 60 < int(upper) < 320 and (int(upper) >= 185 or 120 <= int(lower) < 200)
    )


def _year(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    return 1900 <= value <= 2100 and len(words[at].text) == 4


_TESTS: tuple[tuple[str, Callable[[float, Sequence[Word], int, set[str]], bool]], ...] = (
    ("young_infant", _young),
    ("infant", _infant),
    ("fever_degrees", _fever),
    ("cold_degrees", _cold),
    ("many_doses", _doses),
    ("extreme_sugar", _sugar),
    ("low_oxygen", _oxygen),
    ("extreme_pulse", _pulse),
    ("year", _year),
)
