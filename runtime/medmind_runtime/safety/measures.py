"""Numbers that mean something in an emergency: ages, counts of tablets, grams, and what meters show (`readings`).

Each number found gets a name that patterns use as a list: `<young_infant>`, `<high_fever>`.
"""

from collections.abc import Callable, Sequence

from medmind_runtime.safety import readings
from medmind_runtime.safety.readings import BABY, CHILD
from medmind_runtime.safety.words import Word, before, behind, near

NAMES = (
    "young_infant",
    "infant",
    "fever_degrees",
    "normal_degrees",
    "cold_degrees",
    "many_doses",
    "toxic_grams",
    "extreme_sugar",
    "very_low_oxygen",
    "low_oxygen",
    "extreme_pulse",
    "extreme_pressure",
    "weeks_along",
    "year",
)
_DAYS = {"day": 1.0, "week": 7.0, "wk": 7.0, "month": 30.4, "mo": 30.4, "mth": 30.4, "year": 365.0, "yr": 365.0}
_AGED = CHILD | {"old", "grandson", "granddaughter", "nephew", "niece"}
"""Right behind a number and its unit, these make it an age: "9 day newborn", "8 month old"."""
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
_LATER = {
    "post", "into", "late", "early", "away", "overdue", "past", "pregnant", "out", "since", "after", "off", "clean",
    "sober", "behind", "along", "gestation", "in",
}  # fmt: skip
"""Behind a time that is no age: "he is 2 weeks post surgery"."""
_SMALL_ONES = {"he", "she", "little", "tiny"}
_OWNERS = {"my", "our", "his", "her", "a", "the"}
_YOUNG, _INFANT = 92, 366
"""Days: a fever before the third month's end is an emergency (NICE NG143: 38 °C or higher under 3 months)."""


def name(words: Sequence[Word], at: int) -> str:
    """The name of the number at a place, or an empty text when it is just a number."""
    value = words[at].value
    if value is None:
        return "extreme_pressure" if readings.extreme_pressure(words[at].text) else ""
    around = near(words, at, 5)
    for found, test in _TESTS:
        if test(value, words, at, around):
            return found
    return ""


def _days(value: float, words: Sequence[Word], at: int) -> float | None:
    """The age that a number and its unit say, in days; None where they are no age."""
    following = behind(words, at, 4)
    unit = following[0].removesuffix("s") if following else ""
    if unit not in _DAYS or "pregnant" in following:
        return None
    previous = [word.text for word in words[max(0, at - 4) : at]]
    if "ago" in following[1:2]:
        is_age = not {"born", "birth"}.isdisjoint(previous)
    else:
        typed = words[at + 1]
        joined = words[at].end == typed.start and typed.end - typed.start <= len("wks") and unit != "day"
        is_age = _named_after(following) or _named_before(previous) or _said(previous, following, joined=joined)
    return value * _DAYS[unit] if is_age else None


def _named_after(following: Sequence[str]) -> bool:
    """As "3 weeks old", "of 6 months of age", "9 day newborn"."""
    return "old" in following[1:3] or "age" in following[1:4] or not _AGED.isdisjoint(following[1:2])


def _named_before(previous: Sequence[str]) -> bool:
    """As "aged 10 days", "the baby is 3 weeks", "newborn, 12 days", "our baby of six weeks"."""
    says = previous[-1:] in (["is"], ["only"], ["just"], ["at"])
    baby = not BABY.isdisjoint(previous) and (says or not BABY.isdisjoint(previous[-1:]))
    return "aged" in previous[-2:] or baby or (previous[-1:] == ["of"] and not BABY.isdisjoint(previous[-3:-1]))


def _said(previous: Sequence[str], following: Sequence[str], *, joined: bool) -> bool:
    """As "my 6wk", one short piece, "he is only 8 weeks", "my little man is 4 weeks", nothing counted behind."""
    one_piece = joined and not _OWNERS.isdisjoint(previous[-1:])
    says = previous[-1:] in (["is"], ["only"], ["just"], ["at"]) and not _SMALL_ONES.isdisjoint(previous[-3:-1])
    he_is = previous[-1:] in (["he"], ["she"])  # "he's 7 weeks"
    return (one_piece or says or he_is) and _LATER.isdisjoint(following[1:2])


def _young(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    days = _days(value, words, at)
    return days is not None and days < _YOUNG


def _infant(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    days = _days(value, words, at)
    return days is not None and days < _INFANT


def _doses(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    if not _PRESCRIBED.isdisjoint(around) and _SWALLOWED.isdisjoint(around):
        return False
    if not {"mg", "mcg", "g", "ml"}.isdisjoint(behind(words, at, 1)):
        return False
    counted = 8 <= value < 1000 and not _DOSES.isdisjoint(behind(words, at, 4))
    return counted or (8 <= value <= _MOST_COUNTED and not COUNTED.isdisjoint(behind(words, at, 2)))


def _toxic_grams(value: float, words: Sequence[Word], at: int, around: set[str]) -> bool:
    """More paracetamol than a day's limit, as "9 grams of acetaminophen" or "12000 mg of tylenol"."""
    unit = behind(words, at, 1)
    grams = value if unit[:1] in (["g"], ["gram"], ["grams"], ["gm"]) else value / 1000 if unit == ["mg"] else 0.0
    return _MOST_GRAMS < grams < 200 and not _PARACETAMOL.isdisjoint(around)


def _weeks_along(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    """Of a pregnancy: "20 weeks pregnant", "pregnant, 5 months"."""
    unit = {one.removesuffix("s") for one in behind(words, at, 1)}
    carrying = {*behind(words, at, 3), *before(words, at, 2)} & {"pregnant", "along", "gestation"}
    return value <= 42 and bool(carrying) and not {"week", "wk", "month"}.isdisjoint(unit)


def _year(value: float, words: Sequence[Word], at: int, _: set[str]) -> bool:
    return 1900 <= value <= 2100 and len(words[at].text) == 4


_TESTS: tuple[tuple[str, Callable[[float, Sequence[Word], int, set[str]], bool]], ...] = (
    ("young_infant", _young),
    ("infant", _infant),
    ("fever_degrees", readings.fever),
    ("normal_degrees", readings.normal_degrees),
    ("cold_degrees", readings.cold_degrees),
    ("many_doses", _doses),
    ("toxic_grams", _toxic_grams),
    ("extreme_sugar", readings.extreme_sugar),
    ("extreme_pressure", readings.extreme_pressure_in_words),
    ("very_low_oxygen", readings.very_low_oxygen),
    ("low_oxygen", readings.low_oxygen),
    ("extreme_pulse", readings.extreme_pulse),
    ("weeks_along", _weeks_along),
    ("year", _year),
)
