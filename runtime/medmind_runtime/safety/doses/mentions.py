"""Doses among tokens: a number with a unit, before or after it; a count of a drug; a multiple of the usual dose.

Knows how doses are said. For how many days a drug is taken is none, whatever the passages have: surgery, side effects
and prescriptions are told of in days, too. Knows no passages, and not which drug is meant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from medmind_runtime.safety.doses import (
    amounts,
    answers,
    bare,
    clocks,
    devices,
    foods,
    formulas,
    further,
    labels,
    limitless,
    multiples,
    other_numbers,
    schedules,
    steps,
    strengths,
    sums,
    unnumbered,
)
from medmind_runtime.safety.doses.reading import UNREADABLE, Token
from medmind_runtime.safety.doses.terms import ANY_UNIT, COUNT, Unit, terms
from medmind_runtime.safety.doses.units import Units

_USUAL = "usual"
"""Of a multiple: what it is compared by."""
_ENDLESS = "endless"
"""Of `as many as you like`."""
_RATIO = "ratio"
"""Of `1:1000`; the value is the second number."""
_PERCENT = "percent"
_MOST_ADDED = 6
"""Doses that are read as one sum with the first."""
_SOON = frozenset({"minute", "hour"})


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
        size: of its unit of mass, in mg; of a number without a unit, of the one that was named last; 0 where none was.
    """

    first: int
    last: int
    values: tuple[Fraction, ...]
    unit: str
    product: bool = False
    rates: frozenset[str] = frozenset()
    word: str = ""
    size: Fraction = Fraction(0)


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
            if source and (alone := reader.first.get(at)):
                mention = alone
                yield mention
            at = mention.last
        else:
            at = reader.passed.pop(at, at + 1)


class _Reader(Units):
    """Finds them.

    Attributes:
        passed: where to look next after a token that begins no dose, if that is not the one after it.
        first: the first of several doses that are taken together, by where it begins.
    """

    def __init__(self, row: Sequence[Token], words: list[str], unit_above: Unit | None, **how: bool) -> None:
        super().__init__(row, words, unit_above, **how)
        self.passed: dict[int, int] = {}
        self.first: dict[int, Mention] = {}

    def at(self, at: int) -> Mention | None:
        text = self.texts[at]
        if text == "[" and (end := labels.citation(self, at)):
            self.passed[at] = end
            return None
        if amounts.is_number(self.row, at):
            return self._numbered(at)
        if text in self.known.limitless_begins and (end := limitless.end(self, at)):
            return Mention(at, end, (amounts.BY_WORD,), _ENDLESS, word=text)
        if text in self.known.unnumbered:
            return self._unnumbered(at)
        end = multiples.end(self, at) if text in self.known.multiplying.words else 0
        return Mention(at, end, (amounts.BY_WORD,), _USUAL, word=text) if end else None

    def _numbered(self, at: int) -> Mention | None:
        amount = amounts.read(self.row, at)
        if labels.is_label(self, at, amount.end) or self._of_clock(at, amount.end):
            self.passed[at] = max(amount.end, clocks.end(self, at))
            return None
        if found := self._multiplied(at, amount) or self._strong(at, amount):
            return found
        unit_after = self.unit_after(at, amount.end)
        if (not unit_after or unit_after[1] == amount.end) and (
            steps.told(self, at, amount.end) or devices.told(self, at, amount.end)
        ):
            return replace(self._mention(at, amount.end, amount, ANY_UNIT), size=steps.size(self, at))
        if unit_after:
            unit, end = unit_after
            if self.means_dose(unit, at, end) and not foods.held(self, unit, at, end):
                return self._sum(self._range(self._mention(at, end, amount, unit), unit), unit)
        elif above := COUNT if self._told(at, amount.end) else self.unit_before(at, amount.end):
            return self._mention(at, amount.end, amount, above)
        self.passed[at] = amount.end
        return None

    def _of_clock(self, first: int, end: int) -> bool:
        """`13:00`; and not `insulin to carb ratio 1:15`."""
        return clocks.end(self, first) > 0 and not bare.ratio_end(self, first, end)

    def _multiplied(self, at: int, amount: amounts.Amount) -> Mention | None:
        """A multiple of a dose that is said with a number, or a share of it."""
        end = amount.end
        if share := multiples.share_end(self, at, end):
            return Mention(at, share, amount.values, _USUAL, word=_PERCENT)
        if times := multiples.times_end(self, at, end):
            return Mention(at, times, amount.values, _USUAL)
        last = self.texts[end - 1] in self.known.multiplying.words
        multiple = multiples.end(self, end - 1) if last else 0
        times = end + (self.text(end) == "more")  # `repeat it four more times`
        if not multiple and self.text(times) in self.known.multiplying.fold:
            multiple = multiples.end(self, times)
        return Mention(at, multiple, amount.values, _USUAL) if multiple else None

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
        if self.text(end) in self.known.beside.counted and not course and not schedules.no_hour(self, first, end):
            return False
        return any(module.told(self, first, end) for module in (bare, schedules, answers, strengths, further, formulas))

    def _range(self, mention: Mention, unit: Unit) -> Mention:
        """With the other end of `200 mg to 400 mg`; of `200mg200mg` nothing can be read."""
        at = mention.last
        if (glued := further.glued_end(self, at)) > at:
            return replace(mention, last=glued, values=(UNREADABLE,), product=False)
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
                values, rates = mention.values + more.values, mention.rates | more.rates
                return replace(mention, last=more.last, values=values, rates=rates)
        return mention

    def _sum(self, mention: Mention, unit: Unit) -> Mention:
        """With what is taken on top of it; a passage has each of them alone, too."""
        if len(mention.values) != 1 or mention.rates or self.denied(mention.first):
            return mention
        end, total, added = mention.last, mention.values[0], False
        for _ in range(_MOST_ADDED):
            link = sums.link(self, mention.first, end)
            if link[0] < 0:
                break
            other = amounts.read(self.row, link[0])
            found = self.unit_after(link[0], other.end)
            if not found or found[0].name != unit.name or len(other.values) != 1:
                break
            end, total, added = found[1], total + other.values[0] * found[0].factor, added or link[1]
        another = end == mention.last and self.text(mention.first - 1) in self.known.summing.again
        if not (another or end > mention.last) or not sums.at_once(self, mention.first, mention.last, end, added):
            return mention
        if another:  # than what was taken before, be it so much or not
            return replace(mention, values=(amounts.BY_WORD,), word="another")
        self.first[mention.first] = mention
        return replace(mention, last=end, values=(total,), product=False)

    def _mention(self, first: int, end: int, amount: amounts.Amount, unit: Unit) -> Mention:
        end, rates = self.rates(end)
        if not rates and self.text(end) == "of":
            end, rates = self._rates_of_drug(end)
        if unit.rate:
            rates |= {unit.rate}
        said = amount.values
        product = amount.product
        if product and len(said) == 2 and said[0] == 1 and unit.kind == "":  # `one 75 mg tablet` is 75 mg
            said, product = said[1:], False
        counts = len(said) - 1 if product else 0
        values = (*said[:counts], *(value * unit.factor for value in said[counts:]))
        return Mention(first, end, values, unit.name, product, rates, size=_size(unit))

    def _rates_of_drug(self, at: int) -> tuple[int, frozenset[str]]:
        """`of heparin an hour`, where a dose ends: what is less than a day; see `rates`."""
        for place in range(at + 1, min(at + 4, len(self.row))):
            if self.is_drug(place):
                end, rates = self.rates(place + 1)
                return (end, rates) if rates and rates <= _SOON else (at, frozenset())
        return at, frozenset()

    def _unnumbered(self, at: int) -> Mention | None:
        if not (found := unnumbered.amount(self, at)):
            another = further.another_end(self, at) if self.texts[at] == "another" else 0
            return Mention(at, another, (amounts.BY_WORD,), COUNT.name, word="another") if another else None
        unit, word = found.unit, found.word
        end, rates = (found.end, frozenset[str]()) if found.heap else self.rates(found.end)
        return Mention(
            at, end, (amounts.BY_WORD if word else unit.factor,), unit.name, rates=rates, word=word, size=_size(unit)
        )


def _size(unit: Unit) -> Fraction:
    """In mg; 0 of what is no mass."""
    return unit.factor if unit.name == "mg" else Fraction(0)
