"""The words of doses.toml, looked up: numbers, units, what stands beside a dose, what looks like a drug's name.

Knows single words and phrases; knows no sentence.
"""

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

from medmind_runtime.safety.doses.wordlists import Words, listed, lists

_DOUBLE = re.compile(r"([a-z])\1")


@dataclass(frozen=True)
class Unit:
    """A unit of dose.

    Attributes:
        name: what it is compared by: `mg` for all masses, `ml` for all volumes.
        factor: its size in that.
        kind: "" counts wherever it stands; `form` is counted in tablets and the like; `soft` has other meanings, too;
            `household` measures food as well; `weight` is mostly a person's; `of` counts before a drug's name;
            `ray` and `energy` count where radiation or a shock is given.
        spelt: its own name.
        rate: what it is over, if it says so itself; see `Rates.of`.
    """

    name: str
    factor: Fraction
    kind: str
    spelt: str
    rate: str = ""


COUNT = Unit("count", Fraction(1), "", "count")
"""Of `two ibuprofen`; and where a dose is named without its unit."""
ANY_UNIT = Unit("any", Fraction(1), "", "any")
"""Of a number that may have any unit; see `steps`."""


def _respelt(text: str) -> str:
    """Without what is misspelt most in drugs' names: accents, `ph` and `y`, double letters."""
    plain = "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))
    return _DOUBLE.sub(r"\1", plain.replace("ph", "f").replace("y", "i"))


def _numbers_abroad(data: dict[str, Any]) -> dict[str, Fraction]:
    """Words of other languages with their values; of two that are written as one word the sum."""
    made = {word: Fraction(value) for value, words in data["numbers_abroad"].items() for word in words.split()}
    for row in data["numbers_joined"].values():
        joint, kept = row.get("joint", ""), -1 if row.get("elided") else None
        pairs = list(product(row["first"].split(), row["last"].split()))
        made |= {f"{first[:kept]}{joint}{last}": made[first] + made[last] for first, last in pairs}
    return made


def _phrases(text: str) -> dict[str, list[tuple[str, ...]]]:
    """By their first word, the longest first."""
    made: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted(text.split(), key=len, reverse=True):
        words = tuple(phrase.split("_"))
        made.setdefault(words[0], []).append(words)
    return made


class Terms(Words):
    """The lists of `words`, and what is made of the rest of doses.toml.

    Args:
        data: its content.

    Attributes:
        numbers, scales, parts: the value of a word: `five`, `hundred`, `third`.
        numbers_abroad: the same in other languages, read so before a unit alone.
        units_abroad: first words of their units.
        groups, group_adjectives: the group of people that a word means; that one means before a word for people.
        wider_groups, narrower_groups: the group that one belongs to; the one beside which it is not meant.
        after_number: words after a number without a unit that it does not count.
        before_answer: words before the number that answers a question after a dose.
        periods: days of what something may be done so often in: `week`, `monthly`.
        parts_of_day: the part that a word means: `breakfast` is in the morning.
        weekdays: the days that a word means, by their numbers from Monday on.
        often_begins, often_words: the first words of how often, but for numbers; the same with those after a number.
        often_led: words between a drug and how often it is taken.
        harm, most: phrases that make a dose too much, or the upper end; by their first word, the longest first.
        no_most: phrases that do not although they begin so.
        opening: phrases after one of a drug's doses without a unit, by their first word.
        at_once, moments, immediately: phrases after a number of what is taken: so many together; when; without a pause.
        emptied, turns: phrases after what holds a drug; after a number that is taken on some days.
        limitless_begins: words that a dose without an end may begin with.
        instead: phrases before how often something is not to be taken.
        negations: words before what is not to be done.
        capitals: names of units that are written in these capitals alone.
        by_name: the units by their own names.
        same: of a drug's name the one that it is compared by, if that is another.
        weekly: drugs that are taken once a week.
        before_unit: words between an article and a unit.
        sizes: words of `pea-sized`.
        unnumbered: words that a dose without a number may begin with.
        heaps: words of measures that need no number: `handfuls of it`, `by the spoon`.
        spellable, word_begins, first_pieces: words that are numbers or units; all that they begin with; of that what is
            no word of its own.
        together: of a vaccine's name what it is against, if that is several illnesses.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.numbers = {word: Fraction(value) for word, value in data["numbers"].items()}
        self.scales = {word: Fraction(value) for word, value in data["scales"].items()}
        self.parts = {word: Fraction(1, value) for word, value in data["parts"].items()}
        drugs = data["drugs"]
        self.numbers_abroad = _numbers_abroad(data)
        self.units_abroad: set[str] = set()
        often = self.often
        self.parts_of_day = {word: part for part, words in data["parts_of_day"].items() for word in words.split()}
        self.weekdays = {
            word: set(map(int, days)) for days, words in data["weekdays"].items() for word in words.split()
        }
        self.often_begins = often.every | often.q | often.hourly | often.twice | often.thrice | self.pausing.meals
        self.often_begins |= (
            (often.bid | often.tid | often.qid | often.once | often.alternate | often.alone | often.daily)
            | self.parts_of_day.keys()
            | self.weekdays.keys()
            | often.whenever
            | {"hour"}
        )
        self.periods = {word: Fraction(days) for days, words in data["periods"].items() for word in words.split()}
        self.periods |= dict.fromkeys(often.hours | often.hourly, Fraction(1, 24)) | dict.fromkeys(
            often.minutes, Fraction(1, 1440)
        )
        self.limitless_begins = (
            self.limitless.much | self.limitless.until | self.limitless.whatever | self.limitless.lasting
        ) | self.preparations.finishing
        self.after_number = self.beside.plain | self.unitless.routes | often.q | often.per
        self.before_answer = self.beside.plain - self.answering.no_amount | self.beside.about | self.answering.before
        self.often_words = (
            self.often_begins | often.times | often.clock | often.week | often.hours | often.minutes | self.beside.days
        )
        self.often_led = often.between | often.led | self.parts_of_day.keys()
        self.groups = {word: group for group, words in data["groups"].items() for word in words.split()}
        self.group_adjectives = {
            word: group for group, words in data["group_adjectives"].items() for word in words.split()
        }
        self.wider_groups: dict[str, str] = data["wider_groups"]
        self.narrower_groups: dict[str, str] = data["narrower_groups"]
        kinds = data["kinds"]
        self._add_phrases(kinds)
        self.negations = listed(kinds["negations"])
        self.capitals: dict[str, str] = data["capitals"]
        self.same: dict[str, str] = drugs["same"]
        self.together = lists(drugs["together"])
        self.weekly = listed(drugs["weekly"])
        self._units: dict[str, list[tuple[tuple[str, ...], Unit]]] = {}
        self.by_name: dict[str, Unit] = {}
        self._add_units(data)
        endings = "|".join(drugs["endings"].split())
        self._ending = re.compile(rf"[a-z]{{3,}}(?:{endings})s?", re.I)
        sure = "|".join(drugs["sure"].split())
        self._sure = re.compile(rf"[a-z]{{2,}}(?:{_respelt(sure)})", re.I)
        self._no_drugs = listed(drugs["no_drugs"])
        self._named = listed(drugs["names"])
        self._surely_named = frozenset(map(_respelt, drugs["sure_names"].split()))
        known = sorted(self.numbers.keys() | self.scales.keys() - {"k"} | self.parts.keys(), key=len, reverse=True)
        self._glued = re.compile(rf"(?:{'|'.join(known)})+")
        self._known = re.compile("|".join(known))
        self._add_pieces(known)

    def _add_phrases(self, kinds: dict[str, str]) -> None:
        self.harm, self.most, self.no_most = (
            _phrases(kinds["harm"]),
            _phrases(kinds["most"]),
            _phrases(kinds["no_most"]),
        )
        self.opening, self.immediately = _phrases(kinds["opening"]), _phrases(kinds["immediately"])
        self.moments = _phrases(" ".join([kinds["moments"], kinds["immediately"]]))
        self.at_once, self.instead = _phrases(kinds["at_once"]), _phrases(kinds["instead"])
        self.emptied, self.turns = _phrases(kinds["emptied"]), _phrases(kinds["turns"])

    def _add_pieces(self, known: list[str]) -> None:
        alone = {words[0] for rows in self._units.values() for words, _ in rows if len(words) == 1}
        self.spellable = alone.union(known) - self.units_abroad
        self.word_begins = {word[:size] for word in self.spellable for size in range(1, len(word))}
        whole = self.spellable | self.beside.plain
        self.first_pieces = {
            word for word in self.word_begins if word not in whole or (len(word) == 1 and word not in "ai")
        }

    def _add_units(self, data: dict[str, Any]) -> None:
        for spelt, row in data["units"].items():
            unit = Unit(
                row.get("as", spelt), Fraction(row.get("factor", "1")), row.get("kind", ""), spelt, row.get("rate", "")
            )
            self.by_name[spelt] = unit
            abroad = row.get("abroad", "").split()
            self.units_abroad.update(abroad)
            for phrase in [*row["words"].replace("µ", "μ").split(), *abroad]:
                words = tuple(phrase.split("_"))
                self._units.setdefault(words[0], []).append((words, unit))
        sized = lists(data["sized"])
        self.before_unit = self.beside.modifiers | {"the", "-"}
        self.sizes = sized["things"] | sized["sizes"] | {"-"}
        for words in product(sized["things"], sized["sizes"], sized["those"]):
            self._units.setdefault(words[0], []).append((words, self.by_name["sized"]))
        measured = self.unit_lists.heaped | self.unit_lists.by_the
        self.heaps = {words[0] for rows in self._units.values() for words, unit in rows if unit.spelt in measured}
        self.unnumbered = self.beside.articles | self.beside.all | self.beside.vague | self.heaps
        for rows in self._units.values():
            rows.sort(key=lambda row: -len(row[0]))

    def unit(self, words: list[str], at: int) -> tuple[Unit, int] | None:
        """The unit that begins at a word, and how many words it takes; `600 mg's` is a plural, too."""
        for first in dict.fromkeys((words[at], words[at].removesuffix("'s"))):
            for phrase, unit in self._units.get(first, ()):
                if (first, *words[at + 1 : at + len(phrase)]) == phrase:
                    return unit, len(phrase)
        return None

    @cache  # noqa: B019 - one instance, kept as long as the process
    def is_drug(self, word: str) -> bool:
        """Whether it looks like a drug's name."""
        word = word.removesuffix("'s")
        if word in self._no_drugs or word in self.beside.plain or word.removesuffix("s") in self._no_drugs:
            return False
        if word in self._named or self.is_brand(word):
            return True
        looks_so = len(word) < 40 and bool(self._ending.fullmatch(word) or self._sure.fullmatch(_respelt(word)))
        return looks_so and not self.is_number(word)

    @cache  # noqa: B019 - as above
    def is_surely_drug(self, word: str) -> bool:
        """Whether it is a drug's name, and that of nothing else in the body."""
        word = word.removesuffix("'s")
        return self.is_drug(word) and (self.is_brand(word) or bool(self._sure.fullmatch(_respelt(word))))

    def is_brand(self, word: str) -> bool:
        """Whether it is one of the names that are nothing else's, be it in the plural: `Advils`, `Xanaxes`."""
        return not self._surely_named.isdisjoint(map(_respelt, (word, word.removesuffix("s"), word.removesuffix("es"))))

    @cache  # noqa: B019 - as above
    def is_number(self, word: str) -> bool:
        """Whether it says a number, several written as one word too."""
        return word in self.numbers or word in self.scales or word in self.parts or bool(self.split(word))

    def split(self, word: str) -> list[str]:
        """The number words that one word is made of; empty when it is not made of two or more."""
        if not 6 <= len(word) <= 40 or not self._glued.fullmatch(word):
            return []
        return self._known.findall(word)


@cache
def terms() -> Terms:
    """The terms that medmind carries."""
    return Terms(tomllib.loads((files(__package__) / "doses.toml").read_text(encoding="utf-8")))
