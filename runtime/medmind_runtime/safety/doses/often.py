"""How often a drug is taken, among tokens: `every 6 hours`, `q6h`, `6-hourly`, `four times a day`; as times a day.

Knows no amounts. What is measured, done or suffered every hour is none of a drug.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from medmind_runtime.safety.doses import amounts
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.surroundings import Surroundings
from medmind_runtime.safety.doses.terms import terms

UNIT = "a day"
_BACK, _DRUG_BEFORE, _UNIT_BEFORE = 12, 3, 4
"""Tokens to look back for a verb of taking, for a drug, for a unit of dose."""


def find(row: Sequence[Token], *, source: bool = False, asked: bool = False) -> Iterator[Mention]:
    """All of a text, in their order; the values are times a day.

    Args:
        row: its tokens.
        source, asked: see `Surroundings`.
    """
    known = terms()
    if not any(token.text in known.often_begins or token.text in known.often_later for token in row):
        return
    reader = _Reader(row, [token.text for token in row], source=source, asked=asked)
    at = 0
    while at < len(row):
        mention = reader.at(at) if begins(row[at]) else None
        if mention:
            yield mention
        at = mention.last if mention else at + 1


def begins(token: Token) -> bool:
    """Whether it may be the first of one."""
    known = terms()
    return (
        token.value is not None
        or token.text in known.often_begins
        or known.is_number(token.text)
        or token.text in known.numbers_abroad
    )


class _Reader(Surroundings):
    def __init__(self, row: Sequence[Token], words: list[str], *, source: bool, asked: bool) -> None:
        super().__init__(row, words, source=source, asked=asked)
        self._counted = self.known.often.hours | self.known.often.times

    def at(self, at: int) -> Mention | None:
        read = self._interval(at) or self._times(at) or self._clocks(at)
        if not read or not self._of_taking(at, read[1]):
            return None
        values, end = read
        return Mention(at, end, tuple(sorted(values)), UNIT)

    def _number(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        if (abroad := self.known.numbers_abroad.get(self.text(at))) is not None and self.text(at + 1) in self._counted:
            return (abroad,), at + 1
        if at >= len(self.row) or not amounts.is_number(self.row, at):
            return None
        amount = amounts.read(self.row, at)
        return (amount.values, amount.end) if amount.values and min(amount.values) > 0 else None

    def _interval(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        often = self.known.often
        text = self.text(at)
        if text in often.hourly:
            return (Fraction(24),), at + 1
        led = text in often.every or text in often.q
        place = at + 1 if led else at
        if not led and not amounts.is_number(self.row, at):
            return None
        place += self.text(place) in often.the
        values, end = self._quantity(place) or ((Fraction(1),), place)
        end += self.text(end) in {"-", "a"}
        unit = self.text(end)
        if unit in often.hourly and end > place:
            return tuple(24 / value for value in values), end + 1
        if not led or (unit == "h" and text not in often.q):
            return None
        hours, minutes = unit in often.hours, unit in often.minutes
        if not hours and not minutes:
            return None
        return tuple((24 if hours else 1440) / value for value in values), end + 1

    def _quantity(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        if at < len(self.row) and self.row[at].value is not None and self.row[at].glued:  # `q6h`
            value = self.row[at].value
            return ((value,), at + 1) if value is not None and value > 0 else None
        return self._number(at)

    def _times(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        often = self.known.often
        text = self.text(at)
        for times, words in ((2, often.bid), (3, often.tid), (4, often.qid)):
            if text in words:
                return (Fraction(times),), at + 1
        if text in often.twice or text in often.thrice:
            values: tuple[Fraction, ...] = (Fraction(2 if text in often.twice else 3),)
            end = at + 1
        else:
            read = self._number(at)
            if read is None or self.text(read[1]) not in often.times:
                return None
            values, end = read[0], read[1] + 1
        if self.text(end) in often.per and self.text(end + 1) in often.day:
            return values, end + 2
        if self.text(end) == "in" and self.text(end + 1) == "a" and self.text(end + 2) in often.day:
            return values, end + 3
        per = self.text(end) in often.per | self.known.rates.within
        if per and (hours := self.day_of_hours(end + 1)):
            return values, hours
        return (values, end + 1) if self.text(end) in often.day and self.text(end) != "day" else None

    def _clocks(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        """`8 am, 2 pm and 10 pm`: as often as there are times."""
        count, place = 0, at
        while clock := self._clock(place):
            count, end = count + 1, clock
            place = end
            while self.text(place) in self.known.often.clock_between:
                place += 1
        return ((Fraction(count),), end) if count > 1 else None

    def _clock(self, at: int) -> int:
        """The end of `8 am` or `8:30 am`; 0 for none."""
        if at >= len(self.row) or self.row[at].value is None:
            return 0
        at += 1 + 2 * (self.text(at + 1) == ":")
        return at + 1 if self.text(at) in self.known.often.clock else 0

    def _of_taking(self, first: int, end: int) -> bool:
        """Whether it is a drug that is taken so often."""
        if self._object_before(first):
            return True
        near = any(self.is_drug(place) for place in range(max(0, first - _DRUG_BEFORE), first))
        while end < len(self.row) and self.texts[end] in self.known.beside.of_drug:
            end += 1
        near = near or (end < len(self.row) and self.is_drug(end))
        if near:
            return True
        measured = any(self.unit_at(place) for place in range(max(0, first - _UNIT_BEFORE), first))
        measured = measured and not any(map(self._of_food_at, range(max(1, first - _UNIT_BEFORE), first)))
        taking = self.in_clause(first, self.known.beside.taking)
        taking = taking or (measured and self.in_clause(first, self.known.beside.changing))
        if self.asked and (measured or self.text(first - 1) in {"", ".", "\n"}):
            return True
        return (measured and taking) or ((measured or taking) and (self.drug_in_clause(first) or self.drug_far(first)))

    def _of_food_at(self, at: int) -> bool:
        """`a glass of water`, and not `with water` or `of body weight`."""
        known, text = self.known, self.texts[at]
        food = text in known.beside.no_medicine and text not in known.rates.body_weight
        return food and self.texts[at - 1] not in known.beside.taken_with

    def _object_before(self, first: int) -> bool:
        """`take it`, `use the cream`, with small words between."""
        often, named = self.known.often, False
        for place in range(first - 1, max(-1, first - _BACK), -1):
            text = self.texts[place]
            if text in self.known.beside.taking:
                return named or self._passive(place)
            if text in often.objects:
                named = True
            elif text not in often.between:
                return False
        return False

    def _passive(self, verb: int) -> bool:
        """`it should be taken`."""
        beside, place = self.known.beside, verb - 1
        while place >= 0 and (
            self.texts[place].endswith("ly") or self.texts[place] in beside.plain - self.known.often.objects
        ):
            place -= 1
        return (
            place >= 0
            and self.texts[place] in self.known.often.objects
            and not beside.passive.isdisjoint(self.texts[place:verb])
        )
