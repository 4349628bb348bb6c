"""Doses among tokens: a number with a unit, before or after it; a count of a drug; a multiple of the usual dose.

Knows how doses are said. Knows no passages, and not which drug is meant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from medmind_runtime.safety.doses import (
    amounts,
    answers,
    bare,
    clocks,
    foods,
    labels,
    multiples,
    other_numbers,
    schedules,
    strengths,
)
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import COUNT, Unit, terms
from medmind_runtime.safety.doses.units import Units

_USUAL = "usual"
"""Of a multiple: what it is compared by."""
_RATIO = "ratio"
"""Of `1:1000`; the value is the second number."""
_PERCENT = "percent"
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


def find(
    row: Sequence[Token], unit_above: Unit | None = None, *, source: bool = False, asked: bool = False
) -> Iterator[Mention]:
    """All doses of a text, in their order.

    Args:
        row: its tokens.
        unit_above: of the numbers in the rows of a table.
        source, asked: see `Surroundings`.
    """
    row = other_numbers.in_digits(row)
    words = [token.written if token.written in terms().capitals else token.text for token in row]
    reader = _Reader(row, words, unit_above, source=source, asked=asked)
    at = 0
    while at < len(row):
        mention = reader.at(at)
        if mention:
            yield mention
            at = mention.last
        else:
            at = reader.passed.pop(at, at + 1)


class _Reader(Units):
    """Finds them.

    Attributes:
        passed: where to look next after a token that begins no dose, if that is not the one after it.
    """

    def __init__(self, row: Sequence[Token], words: list[str], unit_above: Unit | None, **how: bool) -> None:
        super().__init__(row, words, unit_above, **how)
        self.passed: dict[int, int] = {}

    def at(self, at: int) -> Mention | None:
        text = self.texts[at]
        if text == "[" and (end := labels.citation(self, at)):
            self.passed[at] = end
            return None
        if amounts.is_number(self.row, at):
            return self._numbered(at)
        if text in self.known.beside.articles or text in self.known.beside.all or text in self.known.beside.vague:
            return self._unnumbered(at)
        end = multiples.end(self, at) if text in self.known.beside.multiples else 0
        return Mention(at, end, (_BY_WORD,), _USUAL, word=text) if end else None

    def _numbered(self, at: int) -> Mention | None:
        amount = amounts.read(self.row, at)
        if labels.is_label(self, at, amount.end) or self._of_clock(at, amount.end):
            self.passed[at] = max(amount.end, clocks.end(self, at))
            return None
        if multiple := self._multiple(amount.end):
            return Mention(at, multiple, amount.values, _USUAL)
        if found := self._strong(at, amount):
            return found
        if unit_after := self.unit_after(at, amount.end):
            unit, end = unit_after
            if self.means_dose(unit, at, end) and not self._held(unit, at, end):
                return self._range(self._mention(at, end, amount, unit), unit)
        elif above := COUNT if self._told(at, amount.end) else self.unit_before(at, amount.end):
            return self._mention(at, amount.end, amount, above)
        self.passed[at] = amount.end
        return None

    def _of_clock(self, first: int, end: int) -> bool:
        """`13:00`; and not `insulin to carb ratio 1:15`."""
        return clocks.end(self, first) > 0 and not bare.ratio_end(self, first, end)

    def _held(self, unit: Unit, first: int, end: int) -> bool:
        """Whether a food or a body holds so much."""
        return (
            foods.holds(self, first, end)
            or (unit.name == "ml" and foods.of_body(self, first, end))
            or (unit.spelt in {"unit", "pint"} and foods.of_drink(self, first, end))
        )

    def _multiple(self, end: int) -> int:
        """The end of a multiple of a dose that is said with a number; 0 for none."""
        last = self.texts[end - 1] in self.known.beside.multiples
        multiple = multiples.end(self, end - 1) if last else 0
        times = end + (self.text(end) == "more")  # `repeat it four more times`
        if not multiple and self.text(times) in self.known.beside.fold:
            multiple = multiples.end(self, times)
        return multiple

    def _strong(self, at: int, amount: amounts.Amount) -> Mention | None:
        """A strength: `1:1000`, `5%` of a patch, `ten of the 200 mg tablets`."""
        if end := bare.ratio_end(self, at, amount.end):
            return Mention(at, end, amounts.read(self.row, amount.end + 1).values, _RATIO)
        if end := strengths.percent_end(self, at, amount.end):
            return Mention(at, end, amount.values, _PERCENT)
        if counted := strengths.counted(self, amount):
            product, unit, end = counted
            return self._mention(at, end, product, unit)
        return None

    def _told(self, first: int, end: int) -> bool:
        """Whether the words around make a number without a unit a dose."""
        course = not self.known.beside.products.isdisjoint(self.texts[first:end])  # `40 x 5 days`
        if self.text(end) in self.known.beside.counted and not course:
            return False
        return any(module.told(self, first, end) for module in (bare, schedules, answers, strengths))

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
            found = self.unit_after(at + 1, other.end)
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
        counts = len(said) - 1 if product else 0
        values = (*said[:counts], *(value * unit.factor for value in said[counts:]))
        return Mention(first, end, values, unit.name, product, rates)

    def _unnumbered(self, at: int) -> Mention | None:
        """`a gram of`, `both tablets`, `a few pills`."""
        text, beside = self.texts[at], self.known.beside
        place = self.past(at + 1, beside.modifiers | {"the", "-"}, 3)
        found = self.unit_at(place) if place < len(self.row) else None
        if found is None or self.texts[place + 1 : place + 3] == ["-", "like"]:
            return None
        unit, size = found
        end, finished = place + size, False
        if text in beside.articles:
            counts = self._one(at, place, end, unit)
        elif text in beside.all:
            asked = self.asked_to_take(at) and not self.denied(at)
            counts = asked and unit.kind in {"form", "soft"} and unit.spelt != "dose"
            finished = not counts and self._finished(at, unit)
        else:
            counts = unit.spelt not in self.known.unit_lists.loose and self.texts[at - 1 : at] != ["how"]
        if not finished and not (counts and self.means_dose(unit, at, end) and not self._held(unit, at, end)):
            return None
        end, rates = self.rates(end)
        if text in beside.articles:
            return Mention(at, end, (unit.factor,), unit.name, rates=rates)
        return Mention(at, end, (_BY_WORD,), unit.name, rates=rates, word=text)

    def _finished(self, at: int, unit: Unit) -> bool:
        """`finish the whole box`, of a drug."""
        verb = at - 1 - (self.text(at - 1) in self.known.beside.own)
        told = self.text(verb) in self.known.beside.finishing and not self.denied(at)
        return unit.spelt == "packet" and told and (self.drug_lately(at) or self.drug_ahead(at))

    def _one(self, at: int, place: int, end: int, unit: Unit) -> bool:
        """Whether `a` with a unit means one of it, as in `take a tablet`, not in `it comes as a tablet`."""
        beside = self.known.beside
        if unit.kind == "soft" and self.text(self.past(end, beside.into, 3)) in beside.places:
            return self.drug_in_clause(at)
        of = self.texts[end : end + 1] == ["of"]
        if (
            unit.spelt in self.known.unit_lists.dosed_alone
            and of
            and self.asked_to_take(at)
            and self.drug_ahead(end, 3)
        ):
            return True
        if unit.spelt == "liter" and of:
            syrup = self.text(self.past(end, beside.of_drug, 3)) in self.known.often.objects
            return self.drug_ahead(end, 2) or (syrup and self.asked_to_take(at))
        if self.texts[at] in beside.each or (unit.kind == "soft" and unit.spelt in self.known.unit_lists.loose):
            return False
        if unit.spelt == "unit":
            return self.texts[at] == "another"
        loose = unit.spelt in self.known.unit_lists.loose_measures and not self.texts[place].endswith("ful")
        measured = len(self.texts[place]) > 1 and (
            unit.kind in {"", "of"} or (unit.kind == "household" and (of or not loose))
        )
        return (
            measured or (unit.kind == "form" and of and self.drug_ahead(end)) or (self.asked_to_take(at) and not loose)
        )
