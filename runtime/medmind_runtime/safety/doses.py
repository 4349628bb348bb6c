"""Doses in a model's words: a number with a unit of dose that no passage has for the same drug is not shown as fact.

Knows numbers in digits and words, units, and the looks of drug names. Holds text back while it may be a part of a dose.
"""

import re
import unicodedata
from collections.abc import Sequence

NOTE = "[dose left out: no source here gives it; ask a doctor or pharmacist]"

_WORDS = (
    "half|quarter|third|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    "seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|dozen|"
    "couple|several|few|point|zero|nought"
)
_DIGITS = r"[0-9½¼¾⅓⅔⅛](?:[0-9.,/½¼¾⅓⅔⅛]|[ \u00a0\u202f](?=[0-9½¼¾⅓⅔⅛]))*"
_ONE = rf"(?:{_DIGITS}|\b(?:{_WORDS})\b)"
_LINK = r"(?:[\s\-–—~]*(?:to|or|and|a|an|of|x|×|up|times|through)?[\s\-–—~]*)"
_UNIT = (
    r"(?:(?:milli|micro|nano|kilo)?[\s-]?gram(?:me)?s?|mgs?|mcgs?|[µμu]gs?|ngs?|gms?|g|kgs?|(?:milli|centi|deci)?[\s-]?lit(?:er|re)s?|"
    r"m\.?l\.?s?|cl|cc|i\.?u\.?s?|(?:international\s+)?units?|meqs?|m?mols?|tablets?|tabs?|pills?|capsules?|caplets?|lozenges?|"
    r"drops?|puffs?|sprays?|sachets?|suppositor(?:y|ies)|patch(?:es)?|ampoules?|vials?|doses?|(?:tea|table)spoon(?:ful)?s?|tsp|tbsp|"
    r"spoonfuls?|inhalations?|injections?|shots?)"
)
_LEVEL = r"(?!\s*(?:/|per)\s*(?:dl|l|deciliters?|decilitres?|lit(?:er|re)s?)\b)"
"""Milligrams a decilitre are a laboratory's value, no dose."""
_RATE = r"(?:\s*(?:/|per|a)\s*(?:kg|kilo(?:gram(?:me)?)?s?|day|d|hour|hr?|m2|m²|dose|min(?:ute)?|week)\b)*"
_DOSE = re.compile(
    rf"(?:{_ONE})(?:{_LINK}{_ONE}|[\s-]*{_UNIT}{_LINK}{_ONE})*(?:\s+(?:of\s+)?(?:an?|the))?[\s\-]*{_UNIT}(?![A-Za-z]){_LEVEL}{_RATE}",
    re.I,
)
_NUMBERLIKE = re.compile(rf"[0-9½¼¾⅓⅔⅛]|\b(?:{_WORDS})\b", re.I)
_WORD, _WHOLE_WORDS = re.compile(r"\S+\s+"), re.compile(r".*\s", re.S)
_SETTLED = 7
"""Words without a number after which a dose is complete."""
_DRUG = re.compile(
    r"\b(?:[a-z]{3,}(?:ol|in|ine|ide|ate|am|pril|sartan|statin|azole|mycin|cillin|fen|one|mab|nib|ium|ac|vir|xaban|gliptin|"
    r"parin|oxin|pine|done|dol|zide|thyroxine|barbital|cycline|floxacin|tidine|tadine|prazole|triptan|setron|terol|olone|onide)"
    r"|tylenol|advil|calpol|insulin|heparin|iron|lithium|zinc|vitamin\s+[a-k]\d*|calcium|magnesium|potassium)s?\b",
    re.I,
)
_NO_DRUGS = frozenset(
    [
        "protein",
        "skin",
        "vein",
        "brain",
        "pain",
        "main",
        "again",
        "certain",
        "within",
        "contain",
        "obtain",
        "remain",
        "explain",
        "begin",
        "origin",
        "margin",
        "medicine",
        "routine",
        "machine",
        "urine",
        "examine",
        "determine",
        "combine",
        "decline",
        "online",
        "alone",
        "phone",
        "bone",
        "hormone",
        "someone",
        "everyone",
        "done",
        "cholesterol",
        "alcohol",
        "control",
        "protocol",
        "school",
        "symptom",
        "program",
        "climate",
        "private",
        "appropriate",
        "immediate",
        "moderate",
        "separate",
        "estimate",
        "climate",
        "rate",
        "date",
        "state",
        "indicate",
        "include",
        "provide",
        "decide",
        "guide",
        "inside",
        "outside",
        "beside",
        "side",
        "wide",
        "divide",
        "cine",
        "fine",
        "line",
        "nine",
        "spine",
        "intestine",
        "migraine",
        "vaccine",
        "genuine",
        "define",
        "imagine",
        "engine",
        "cytokine",
        "exam",
        "team",
        "cream",
        "stream",
        "gram",
        "milligram",
        "milligrams",
        "microgram",
        "skin",
        "maintain",
        "captain",
        "mountain",
        "stain",
        "strain",
        "chin",
        "coin",
        "ruin",
        "twin",
        "win",
        "hemoglobin",
        "melanin",
        "keratin",
        "bilirubin",
        "albumin",
        "toxin",
        "antitoxin",
    ]
)


def plain(text: str) -> str:
    """Full-width digits and their like as ASCII, signs that cannot be seen left out."""
    made = "".join(
        unicodedata.normalize("NFKC", sign) if unicodedata.decimal(sign, None) is not None else sign for sign in text
    )
    return "".join(sign for sign in made if unicodedata.category(sign) != "Cf")


def drugs(text: str) -> set[str]:
    """Words that look like a drug's name, in lower case."""
    return {word.lower() for word in _DRUG.findall(text)} - _NO_DRUGS


def _form(dose: str) -> str:
    """A dose as it is compared: digits, unit and rate, without spaces and the plural."""
    text = re.sub(r"[\s\-\u00a0\u202f]+", "", plain(dose).lower()).replace("μ", "µ").replace(",", "")
    for long, short in (("milligram", "mg"), ("microgram", "mcg"), ("µg", "mcg"), ("millilit", "ml"), ("per", "/")):
        text = text.replace(long, short)
    return re.sub(r"(?<=mg)(?:me)?s?|(?<=ml)(?:er|re)?s?|s$", "", text)


class DoseWatch:
    """Lets a stream through but for doses that no passage has for the same drug.

    Args:
        passages: the texts of what the model was given.
        asked: the question, whose drug is meant where the answer names none.
    """

    def __init__(self, passages: Sequence[str], asked: str = "") -> None:
        self._by_drug: list[tuple[str, set[str]]] = [
            (_form(dose.group()), drugs(sentence))
            for passage in passages
            for sentence in re.split(r"(?<=[.!?])\s+|\n+", plain(passage))
            for dose in _DOSE.finditer(sentence)
        ]
        self._drugs = drugs(asked)
        self._held = ""
        self._sentence = ""

    def feed(self, text: str) -> str:
        """Take the next words; return what may be shown."""
        self._held += plain(text)
        whole = _WHOLE_WORDS.match(self._held)  # a long run without spaces is no word yet, and is not tried as one
        words = list(_WORD.finditer(self._held, 0, whole.end() if whole else 0))
        cut = settled = 0
        waiting = False
        for word in words:
            if _NUMBERLIKE.search(word.group()):
                waiting, settled = True, 0
            elif waiting:
                settled += 1
                waiting = settled < _SETTLED and "\n\n" not in word.group()
            if not waiting:
                cut = word.end()
        ready, self._held = self._held[:cut], self._held[cut:]
        return self._checked(ready)

    def finish(self) -> str:
        """What was held back."""
        ready, self._held = self._held, ""
        return self._checked(ready)

    def _checked(self, text: str) -> str:
        made, at = "", 0
        for dose in _DOSE.finditer(text):
            before = self._sentence + text[at : dose.start()]
            after = re.split(r"[.!?](?:\s|$)", text[dose.end() :], maxsplit=1)[0]
            own = drugs(re.split(r"[.!?]\s", before)[-1] + " " + after) or self._last_drugs(before)
            made += text[at : dose.start()] + (dose.group() if self._has(dose.group(), own) else NOTE)
            at = dose.end()
        self._sentence = (self._sentence + text)[-600:]
        return made + text[at:]

    def _last_drugs(self, before: str) -> set[str]:
        for sentence in reversed(re.split(r"[.!?]\s", before)):
            if found := drugs(sentence):
                return found
        return self._drugs

    def _has(self, dose: str, own: set[str]) -> bool:
        return bool(own) and any(form == _form(dose) and own <= named for form, named in self._by_drug)
