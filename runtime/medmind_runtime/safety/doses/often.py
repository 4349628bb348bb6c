"""How often a drug is taken, among tokens: `every 6 hours`, `q6h`, `four times a day`, `every other day`, `weekly`; as
times a day. And how many times in all: `take it five times`.

Knows no amounts. What is measured, done or suffered every hour is none of a drug.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from medmind_runtime.safety.doses import amounts, clocks, devices, occasions, spacing, weekdays
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.taking import Taking
from medmind_runtime.safety.doses.terms import terms

UNIT, IN_ALL = "a day", "times"
_NOBODYS = 10_000
"""Times that nobody takes anything in all: `it was prescribed 92 million times`."""
DAILY = (Fraction(1),)


def find(row: Sequence[Token], *, source: bool = False, asked: bool = False) -> Iterator[Mention]:
    """All of a text, in their order; the values are times a day.

    Args:
        row: its tokens.
        source, asked: see `Surroundings`.
    """
    texts = [token.text for token in row]
    if terms().often_words.isdisjoint(texts) and not clocks.any_minutes(row, texts):
        return
    reader = _Reader(row, texts, source=source, asked=asked)
    at = 0
    while at < len(row):
        mention = reader.at(at) if begins(row[at]) else None
        if mention:
            reader.told = mention.last
            yield mention
        at = mention.last if mention else at + 1


def begins(token: Token) -> bool:
    """Whether it may be the first of one."""
    known = terms()
    return (
        token.value is not None
        or token.text in known.often_begins
        or token.text in known.beside.one
        or known.is_number(token.text)
        or token.text in known.numbers_abroad
    )


class _Reader(Taking):
    def __init__(self, row: Sequence[Token], words: list[str], *, source: bool, asked: bool) -> None:
        super().__init__(row, words, source=source, asked=asked)
        self._counted = self.known.often.hours | self.known.often.times

    def at(self, at: int) -> Mention | None:
        if found := self._by_time(at):
            return found
        read = self._interval(at) or self._times(at) or self._of_week(at) or self._clocks(at) or weekdays.days(self, at)
        if not read:
            return self._in_all(at)
        if not self.of_taking(at, read[1]) or (min(read[0]) <= 1 and self.of_checkups(at, read[1])):
            return None
        if read[0] == DAILY and (self.denied(at) or self.phrase(self.known.instead, at - 2) == at > 0):
            return None
        values, end = read
        return Mention(at, end, tuple(sorted(values)), UNIT)

    def _by_time(self, at: int) -> Mention | None:
        """By what stands between two doses, by parts of the day, or by what happens then."""
        if spaced := spacing.between_doses(self, at):
            return Mention(at, spaced[1], tuple(sorted(spaced[0])), UNIT)
        if occasion := occasions.occasion(self, at):
            verb, values, end = occasion
            taken = self.of_taking(at, end) and not self.denied(at)
            return Mention(at, end, values, UNIT, word=verb) if taken else None
        if (hours := occasions.hourly(self, at)) and self.of_taking(self._lead(at), hours[1]):
            return Mention(at, hours[1], hours[0], UNIT)
        of_day = spacing.of_day(self, at)
        taken = of_day is not None and self.of_taking(spacing.lead_of_day(self, at), of_day[1])
        return Mention(at, of_day[1], of_day[0], UNIT) if of_day and taken else None

    def _lead(self, at: int) -> int:
        """Where `on the` before an hour begins."""
        while self.text(at - 1) in {"on", "by", "the"} | self.known.parts.keys():
            at -= 1
        return at

    def _number(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        if (abroad := self.known.numbers_abroad.get(self.text(at))) is not None and self.text(at + 1) in self._counted:
            return (abroad,), at + 1
        if at >= len(self.row) or not amounts.is_number(self.row, at):
            return None
        amount = amounts.read(self.row, at)
        return (amount.values, amount.end) if amount.values and min(amount.values) > 0 else None

    def _interval(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        often, periods = self.known.often, self.known.periods
        text = self.text(at)
        if text in often.hourly or text in often.alone:
            return ((1 / periods[text],), at + 1) if self.text(at - 1) != "-" or not self.row[at].glued else None
        if text in often.daily:
            adjective = self.source and self.text(at + 1) in often.no_often
            return None if adjective else (DAILY, at + 1 + (self.text(at + 1) in often.basis))
        alternate = text in often.alternate
        led = text in often.every or text in often.q or alternate
        if not led and not amounts.is_number(self.row, at):
            return None
        place = at + (led and not alternate)
        place += self.text(place) in often.the
        values, end = self._quantity(place) or ((Fraction(1),), place)
        hyphen = self.text(end) == "-"
        end += hyphen or self.text(end) in self.known.beside.one - {"one"}
        end += 2 * (self.texts[end : end + 2] == ["of", "an"])  # `every quarter of an hour`
        unit = self.text(end)
        if unit in often.hourly or unit in often.alone:
            goes = hyphen or (unit in often.hourly and end > place)
        else:
            goes = led and (unit != "h" or text in often.q)
        days = periods.get(unit)
        if not days or not goes:
            return None
        return tuple(1 / (days * value) for value in values), end + 1

    def _quantity(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        often, text = self.known.often, self.text(at)
        if text in often.other:
            return (Fraction(2),), at + 1
        if text in often.ordinals:
            return (1 / self.known.parts[text],), at + 1
        if at < len(self.row) and self.row[at].value is not None and self.row[at].glued:  # `q6h`
            value = self.row[at].value
            return ((value,), at + 1) if value is not None and value > 0 else None
        read = self._number(at)
        return (read[0], read[1] + (self.text(read[1]) in often.after_digits)) if read else None

    def _times(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        often = self.known.often
        text = self.text(at)
        for times, words in ((2, often.bid), (3, often.tid), (4, often.qid)):
            if text in words:
                return (Fraction(times),), at + 1
        read = self._count(at)
        if read is None:
            return None
        values, end = read
        per = self.text(end) in often.per
        if (per or self.text(end) in self.known.rates.within) and (hours := self.day_of_hours(end + 1)):
            return values, hours
        end += (
            1 + (self.text(end) == "in" and self.text(end + 1) in {"a", "the", "one", "any"})
            if per
            else self.text(end) == "-"
        )
        unit = self.text(end)
        days = self.known.periods.get(unit, Fraction(1)) if per or unit in often.alone else Fraction(1)
        if days > 1 or unit in often.hours:
            return tuple(value / days for value in values), end + 1
        daily = (unit in often.day and (per or unit != "day")) or (per and unit in self.known.periods and days == 1)
        return (values, end + 1) if daily else None

    def _count(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        """`once`, `twice`, `3 times`."""
        often, text = self.known.often, self.text(at)
        for times, words in ((1, often.once), (2, often.twice), (3, often.thrice)):
            if text in words:
                return (Fraction(times),), at + 1
        read = self._number(at)
        return (read[0], read[1] + 1) if read and self.text(read[1]) in often.times else None

    def _of_week(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        """`seven days a week`."""
        often, read = self.known.often, self._number(at)
        if read is None or self.text(read[1]) not in often.days or self.text(read[1] + 1) not in often.per:
            return None
        return (tuple(value / 7 for value in read[0]), read[1] + 3) if self.text(read[1] + 2) in often.week else None

    def _in_all(self, at: int) -> Mention | None:
        """`take nitroglycerin five times`."""
        read = self._count(at)
        if read is None or not 1 < min(read[0]) < _NOBODYS:
            return None
        values, end = read
        often, following = self.known.often, self.text(end)
        ends = end >= len(self.row) or following in {".", "\n", ",", ")"} or following in often.total
        ends = ends or (following == "in" and self.text(end + 1) in often.row)
        if not ends and not devices.placed(self, end):
            return None
        drug = at - 1 - (self.text(at - 1) == ",")
        told = drug >= 0 and self.is_drug(drug) and self.text(drug - 1) in {"", ".", "\n", ":"}
        taken = self.object_before(at) or self._amount_before(at) or devices.pressed(self, at)
        taken = taken or self.in_clause(at, self.known.handling.filling)
        told = told or (taken and (self.drug_in_reach(at) or devices.own_pressed(self, at)))
        return Mention(at, end, tuple(sorted(values)), IN_ALL) if told else None

    def _amount_before(self, at: int) -> bool:
        """`40 mg thrice`, `40 mg, three times`."""
        at -= self.text(at - 1) == ","
        found = self.unit_at(at - 1) if at else None
        return found is not None and self.numbered_unit(at - 1)

    def _clocks(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        count, end = clocks.times(self, at)
        return ((Fraction(count),), end) if count else None
