"""How often a drug is taken, among tokens: `every 6 hours`, `q6h`, `four times a day`, `every other day`, `weekly`; as
times a day. And how many times in all: `take it five times`.

Knows no amounts. What is measured, done or suffered every hour is none of a drug.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from medmind_runtime.safety.doses import amounts, clocks, devices, occasions, spacing, weekdays
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.surroundings import Surroundings
from medmind_runtime.safety.doses.terms import terms

UNIT, IN_ALL = "a day", "times"
_NOBODYS = 10_000
"""Times that nobody takes anything in all: `it was prescribed 92 million times`."""
DAILY = (Fraction(1),)
_BACK, _DRUG_BEFORE, _UNIT_BEFORE, _CHECKUP_AFTER = 12, 3, 4, 2
"""Tokens to look back for a verb of taking, for a drug, for a unit of dose; to look ahead for what is checked."""


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


class _Reader(Surroundings):
    def __init__(self, row: Sequence[Token], words: list[str], *, source: bool, asked: bool) -> None:
        super().__init__(row, words, source=source, asked=asked)
        self._counted = self.known.often.hours | self.known.often.times

    def at(self, at: int) -> Mention | None:
        if found := self._by_time(at):
            return found
        read = self._interval(at) or self._times(at) or self._of_week(at) or self._clocks(at) or weekdays.days(self, at)
        if not read:
            return self._in_all(at)
        if not self._of_taking(at, read[1]) or (min(read[0]) <= 1 and self._of_checkups(at, read[1])):
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
            taken = self._of_taking(at, end) and not self.denied(at)
            return Mention(at, end, values, UNIT, word=verb) if taken else None
        if (hours := occasions.hourly(self, at)) and self._of_taking(self._lead(at), hours[1]):
            return Mention(at, hours[1], hours[0], UNIT)
        of_day = spacing.of_day(self, at)
        taken = of_day is not None and self._of_taking(spacing.lead_of_day(self, at), of_day[1])
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
            return ((1 / periods[text],), at + 1) if self.text(at - 1) != "-" else None
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
        end += hyphen or self.text(end) == "a"
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
        taken = self._object_before(at) or self._amount_before(at) or devices.pressed(self, at)
        taken = taken or self.in_clause(at, self.known.handling.filling)
        told = told or (taken and self.drug_in_reach(at))
        return Mention(at, end, tuple(sorted(values)), IN_ALL) if told else None

    def _amount_before(self, at: int) -> bool:
        """`40 mg thrice`, `40 mg, three times`."""
        at -= self.text(at - 1) == ","
        found = self.unit_at(at - 1) if at else None
        return found is not None and self.numbered_unit(at - 1)

    def _clocks(self, at: int) -> tuple[tuple[Fraction, ...], int] | None:
        count, end = clocks.times(self, at)
        return ((Fraction(count),), end) if count else None

    def _of_taking(self, first: int, end: int) -> bool:
        """Whether it is a drug that is taken so often."""
        if self._object_before(first):
            return True
        if self._else_done(first):
            return False
        near = any(self.is_drug(place) for place in range(max(0, first - _DRUG_BEFORE), first)) or self._drug_led(first)
        while end < len(self.row) and self.texts[end] in self.known.beside.of_drug:
            end += 1
        near = near or (end < len(self.row) and self.is_drug(end))
        if near:
            return True
        measured = any(self.unit_at(place) for place in range(max(0, first - _UNIT_BEFORE), first))
        measured = measured and not any(map(self._of_food_at, range(max(1, first - _UNIT_BEFORE), first)))
        due = self.text(first - 1) == "at" and self.in_clause(first, self.known.often.due)
        taking = due or self.in_clause(first, self.known.beside.taking)
        taking = taking or (measured and self.in_clause(first, self.known.beside.changing))
        begins = self.text(first - 1 - (self.text(first - 1) == "on")) in {"", ".", "\n"}
        if self.asked and (measured or begins or due):
            return True
        return (measured and taking) or ((measured or taking) and (self.drug_in_clause(first) or self.drug_far(first)))

    def _drug_led(self, first: int) -> bool:
        """`morphine as often as every hour`, `morphine round the clock, hourly`."""
        place = first - 1
        while place >= 0 and self.texts[place] in self.known.often_led:
            place -= 1
        return place >= 0 and self.is_drug(place)

    def _else_done(self, first: int) -> bool:
        """`people on lithium should drink with every meal`: what a verb without a drug behind it is of."""
        often, beside = self.known.often, self.known.beside
        for place in range(first - 1, max(-1, first - _BACK), -1):
            text = self.texts[place]
            if text in often.else_done:
                return True
            of_device = self.is_drug(place) and self.text(place + 1) in self.known.handling.things
            drug = self.is_drug(place) and not of_device  # `wash the salbutamol mouthpiece every week`
            if text in {".", "\n", ",", ":"} or text in beside.taking or drug or self.unit_at(place):
                return False
        return False

    def _of_checkups(self, first: int, end: int) -> bool:
        """`The INR on warfarin is checked weekly`, `methotrexate needs a weekly blood test`."""
        checkups = self.known.often.checkups
        return not checkups.isdisjoint(self.texts[end : end + _CHECKUP_AFTER]) or (
            self.in_clause(first, checkups) and not self._object_before(first)
        )

    def _of_food_at(self, at: int) -> bool:
        """`a glass of water`, and not `with water` or `of body weight`."""
        known, text = self.known, self.texts[at]
        food = text in known.eating.no_medicine and text not in known.rates.body_weight
        return food and self.texts[at - 1] not in known.eating.taken_with

    def _object_before(self, first: int) -> bool:
        """`take it`, `use the cream`, with small words between."""
        often, named = self.known.often, False
        for place in range(first - 1, max(-1, first - _BACK), -1):
            text = self.texts[place]
            if text in self.known.beside.taking:
                return named or self._passive(place) or self._to_take(place)
            if text in often.objects or self.is_drug(place):
                named = True
            elif text not in often.between and not amounts.is_number(self.row, place) and not self.unit_at(place):
                return False
        return False

    def _to_take(self, verb: int) -> bool:
        """`ibuprofen is harmless to take`."""
        if self.text(verb - 1) != "to":
            return False
        begin = verb - len(self.clause_before(verb))
        return any(self.is_drug(place) or self.texts[place] in self.known.often.objects for place in range(begin, verb))

    def _passive(self, verb: int) -> bool:
        """`it should be taken`."""
        beside, place = self.known.beside, verb - 1
        while place >= 0 and (
            self.texts[place].endswith("ly") or self.texts[place] in beside.plain - self.known.often.objects
        ):
            place -= 1
        return (
            place >= 0
            and (self.texts[place] in self.known.often.objects or self.is_drug(place))
            and not beside.passive.isdisjoint(self.texts[place:verb])
        )
