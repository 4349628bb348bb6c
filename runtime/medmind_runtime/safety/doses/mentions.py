"""Doses among tokens: a number with a unit, before or after it; a count of a drug; a multiple of the usual dose.

Knows how doses are said. Knows no passages, and not which drug is meant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from medmind_runtime.safety.doses import amounts, bare, multiples, other_numbers
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings
from medmind_runtime.safety.doses.terms import Unit, terms

_COUNT = Unit("count", Fraction(1), "", "count")
"""Of `two ibuprofen`; and where a dose is named without its unit."""
_USUAL = "usual"
"""Of a multiple: what it is compared by."""
_SOLD_AS = 100
"""`two of the 500s`, and not `in their 60s`."""
_YEARS = range(1500, 2100)
_BY_WORD = Fraction(-2)
"""The value of an amount that a word alone says."""


@dataclass(frozen=True)
class Mention:
    """One dose.

    Attributes:
        first, last: its tokens, `last` not among them.
        values: in the unit's base, such as mg for all masses; below zero where it is said by `word` alone, or where a
            number cannot be read (`reading.UNREADABLE`).
        unit: what it is compared by.
        product: see `amounts.Amount`.
        rates: what it is meant for: kg, day, hour, ...
        word: that says how much in place of a number: `several` tablets, `double` the dose.
    """

    first: int
    last: int
    values: tuple[Fraction, ...]
    unit: str
    product: bool = False
    rates: frozenset[str] = frozenset()
    word: str = ""


def find(row: Sequence[Token], unit_above: Unit | None = None, *, source: bool = False) -> Iterator[Mention]:
    """All doses of a text, in their order.

    Args:
        row: its tokens.
        unit_above: of the numbers in the rows of a table.
        source: see `Surroundings`.
    """
    row = other_numbers.in_digits(row)
    words = [token.written if token.written in terms().capitals else token.text for token in row]
    reader = _Reader(row, words, unit_above, source)
    at = 0
    while at < len(row):
        mention = reader.at(at)
        if mention:
            yield mention
            at = mention.last
        else:
            at = reader.passed(at)


class _Reader(Surroundings):
    def __init__(self, row: Sequence[Token], words: list[str], unit_above: Unit | None, source: bool) -> None:
        super().__init__(row, words, source=source)
        self.unit_above = unit_above
        self._passed: dict[int, int] = {}

    def passed(self, at: int) -> int:
        """Where to look next after a token that begins no dose."""
        return self._passed.pop(at, at + 1)

    def at(self, at: int) -> Mention | None:
        text = self.texts[at]
        if text == "[" and (end := self.citation(at)):
            self._passed[at] = end
            return None
        if amounts.is_number(self.row, at):
            return self._numbered(at)
        if text in self.known.beside.articles or text in self.known.beside.all or text in self.known.beside.vague:
            return self._unnumbered(at)
        end = multiples.end(self, at) if text in self.known.beside.multiples else 0
        return Mention(at, end, (_BY_WORD,), _USUAL, word=text) if end else None

    def _numbered(self, at: int) -> Mention | None:
        amount = amounts.read(self.row, at)
        if self.is_label(at, amount.end):
            self._passed[at] = amount.end
            return None
        last = self.texts[amount.end - 1] in self.known.beside.multiples
        multiple = multiples.end(self, amount.end - 1) if last else 0
        if not multiple and not self.known.beside.fold.isdisjoint(self.texts[amount.end : amount.end + 1]):
            multiple = multiples.end(self, amount.end)
        if multiple:
            return Mention(at, multiple, amount.values, _USUAL)
        found = self._unit_after(at, amount.end)
        if found:
            unit, end = found
            if self.means_dose(unit, at, end):
                return self._range(self._mention(at, end, amount, unit), unit)
        elif above := _COUNT if bare.told(self, at, amount.end) else self._unit_before(at, amount.end):
            return self._mention(at, amount.end, amount, above)
        self._passed[at] = amount.end
        return None

    def _range(self, mention: Mention, unit: Unit) -> Mention:
        """With the other end of `200 mg to 400 mg`."""
        at = mention.last
        if (
            self.texts[at : at + 1]
            and self.texts[at] in self.known.beside.range_to
            and at + 1 < len(self.row)
            and amounts.is_number(self.row, at + 1)
        ):
            other = amounts.read(self.row, at + 1)
            found = self._unit_after(at + 1, other.end)
            if found and found[0].name == unit.name:
                more = self._mention(at + 1, found[1], other, found[0])
                return Mention(
                    mention.first,
                    more.last,
                    mention.values + more.values,
                    unit.name,
                    mention.product,
                    mention.rates | more.rates,
                )
        return mention

    def _mention(self, first: int, end: int, amount: amounts.Amount, unit: Unit) -> Mention:
        end, rates = self.rates(end)
        if unit.rate:
            rates |= {unit.rate}
        said = amount.values
        product = amount.product
        if product and len(said) == 2 and said[0] == 1 and unit.kind == "":  # `one 75 mg tablet` is 75 mg
            said, product = said[1:], False
        values = tuple(value * unit.factor for value in said)
        return Mention(first, end, values, unit.name, product, rates)

    def _unit_after(self, first: int, at: int) -> tuple[Unit, int] | None:
        """The unit of a number that ends here, maybe with words between."""
        beside = self.known.beside
        if (
            self.texts[at : at + 1]
            and (self.texts[at] == "a" or self.texts[at] in beside.each)
            and (found := self._counted(first, at))
        ):
            return found
        strange = passed = 0
        while at < len(self.row) and passed < 9:
            if found := self.unit_at(at):
                unit, size = found
                if strange and unit.kind not in {"form", "soft"}:
                    return None
                if unit.spelt == "dose" and strange:
                    return None
                return unit, at + size
            text = self.texts[at]
            if text in beside.counted:
                return None
            if text in beside.soft or text in beside.extra:
                pass
            elif text in beside.modifiers:
                strange = strange or 1
            elif self.is_name(at) or (self.asked_to_take(first) and self.row[at].is_word and text not in beside.plain):
                strange += 1
            else:
                break
            if strange > 3:
                break
            passed += 1
            at += 1
        return self._counted(first, at - passed)

    def _counted(self, first: int, at: int) -> tuple[Unit, int] | None:
        """A count without a unit: `two ibuprofen`, `take 2 now`, `ten a day of methotrexate`."""
        rest, beside = self.texts[at : at + 3], self.known.beside
        if bare.is_clock(self, first, at):
            return None
        place = next((at + step for step, text in enumerate(self.texts[at : at + 5]) if text not in beside.skipped), at)
        asked, drug = self.asked_to_take(first), self.drug_in_clause(first)
        chemical = rest[:1] == ["-"] and place == at + 1 and self.row[at].glued and self.row[place].glued
        if rest and self.is_drug(place) and not chemical:
            following = self.texts[place + 1 : place + 2]
            free = not following or not self.row[place + 1].is_word or following[0] in beside.plain
            kinds = self.texts[place].endswith("s") and not self.in_clause(first, self.known.beside.taking)
            if (asked or free) and not kinds:
                return _COUNT, place + 1 if "of" not in rest[: place - at] else at
        if asked and rest[:1] == ["of"] and rest[1:2] and rest[1] in beside.of_it:
            goes_on = len(rest) > 2 and self.row[at + 2].is_word and rest[2] not in beside.plain
            return None if goes_on else (_COUNT, at + 2)
        if rest[:1] == ["s"] and self.row[at].glued and (drug or self.in_clause(first, beside.taking)):
            value = self.row[at - 1].value or Fraction(0)
            return (_COUNT, at + 1) if value >= _SOLD_AS and value not in _YEARS else None
        a_day = len(rest) > 1 and rest[0] in self.known.rates.per and rest[1] in self.known.rates.of["day"]
        often = bool(rest) and (
            rest[0] in self.known.often.every | self.known.often.abbreviated | self.known.rates.alone
        )
        if (a_day or often) and (asked or drug or self.drug_ahead(at)):
            return _COUNT, at
        ends = not rest or not self.row[at].is_word or (rest[0] in beside.plain and rest[0] not in beside.periods)
        told = (
            asked
            and ends
            and self.texts[first:at] != ["one"]
            and not bare.is_age(self, first)
            and not bare.of_measure(self, first)
        )
        return (_COUNT, at) if told and not (rest and rest[0] in beside.counted) else None

    def _unit_before(self, first: int, end: int) -> Unit | None:
        """What a number is of: `Dose (mg): 800`, `mg | 800`, the word `dose` alone; or a drug, `Ibuprofen 800`."""
        beside, following = self.known.beside, self.texts[end : end + 1]
        if following and (
            following[0] in beside.counted
            or (self.row[end].is_word and following[0] not in beside.plain and not self.is_drug(end))
        ):
            return None
        if self.unit_above is not None and "|" in self.texts[max(0, first - NEAR) : first]:
            return self.unit_above
        for at in range(first - 1, max(-1, first - NEAR), -1):
            vitamin = len(self.texts[at]) == 1 and self.text(at - 1) == "vitamin" and self.large(first)
            if vitamin or self.texts[at] in beside.amounts or self.texts[at] in beside.dosing:
                return _COUNT
            found = self.unit_at(at)
            if found and found[0].kind in {"", "form", "household"} and not self.numbered_unit(at):
                return found[0]
            if self.is_drug(at) or self.texts[at] not in beside.equals:
                return _COUNT if self.is_drug(at) and bare.of_drug_before(self, at, first, end) else None
        return None

    def _unnumbered(self, at: int) -> Mention | None:
        """`a gram of`, `both tablets`, `a few pills`."""
        text, beside = self.texts[at], self.known.beside
        place = self.past(at + 1, beside.modifiers | {"the", "-"}, 3)
        found = self.unit_at(place) if place < len(self.row) else None
        if found is None or self.texts[place + 1 : place + 3] == ["-", "like"]:
            return None
        unit, size = found
        end = place + size
        if text in beside.articles:
            counts = self._one(at, place, end, unit)
        elif text in beside.all:
            asked = self.asked_to_take(at) and not self.denied(at)
            counts = asked and unit.kind in {"form", "soft"} and unit.spelt != "dose"
        else:
            counts = unit.spelt not in self.known.unit_lists.loose and self.texts[at - 1 : at] != ["how"]
        if not counts or not self.means_dose(unit, at, end):
            return None
        end, rates = self.rates(end)
        if text in beside.articles:
            return Mention(at, end, (unit.factor,), unit.name, rates=rates)
        return Mention(at, end, (_BY_WORD,), unit.name, rates=rates, word=text)

    def _one(self, at: int, place: int, end: int, unit: Unit) -> bool:
        """Whether `a` with a unit means one of it, as in `take a tablet`, not in `it comes as a tablet`."""
        beside = self.known.beside
        if unit.kind == "soft" and self.text(self.past(end, beside.into, 3)) in beside.places:
            return self.drug_in_clause(at)
        if self.texts[at] in beside.each or (unit.kind == "soft" and unit.spelt in self.known.unit_lists.loose):
            return False
        if unit.spelt == "unit":
            return self.texts[at] == "another"
        of = self.texts[end : end + 1] == ["of"]
        loose = unit.spelt in self.known.unit_lists.loose_measures and not self.texts[place].endswith("ful")
        measured = len(self.texts[place]) > 1 and (
            unit.kind in {"", "of"} or (unit.kind == "household" and (of or not loose))
        )
        return (
            measured or (unit.kind == "form" and of and self.drug_ahead(end)) or (self.asked_to_take(at) and not loose)
        )
