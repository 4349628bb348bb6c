"""Numbers among tokens: `two and a half`, `1 1/2`, `5-10`, `8×10²`, `eight hundred (800)`. Knows no units."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms

LARGE = 50
"""A number on a drug's name that is its dose; `exostosin-2` is a name."""
_YEARS = 1500, 2100
_LONGEST_RUN, _LONGEST_LINK = 24, 3
_ZERO = Fraction(0)
_SIGNS = frozenset("x×")
_POWERS = str.maketrans("²³⁰¹⁴⁵⁶⁷⁸⁹", "2301456789")

BY_WORD = Fraction(-2)
"""The value of an amount that a word alone says."""


@dataclass(frozen=True)
class Amount:
    """A number, or several that are said as one.

    Attributes:
        end: the token after it.
        values: in the order of saying; each once where a number is said twice.
        product: said with × or side by side, as in `two 500 mg tablets`.
    """

    end: int
    values: tuple[Fraction, ...]
    product: bool = False


def is_number(row: Sequence[Token], at: int) -> bool:
    """Whether a number is said here; `B12` and `COVID-19` are names."""
    token = row[at]
    known = terms()
    if token.value is None:
        if token.text == "score" or (token.text == "k" and not token.glued):
            return False
        return known.is_number(token.text) and token.text not in {"single", "k"}
    if token.glued and at and token.text[:1].isdigit():
        before = row[at - 1]
        if before.is_word and before.text not in known.beside.taking and before.text != "x":
            unit = known.unit([row[at + 1].text], 0) if at + 1 < len(row) else None  # `amlodipine10mg`
            if unit and before.glued and at > 1 and row[at - 2].value is not None:  # `200mg200mg`
                return known.unit([before.text], 0) is not None
            return (token.value >= LARGE or unit is not None) and known.is_drug(before.text)
        if before.text == "-" and before.glued and at > 1 and token.value < 100:
            name = row[at - 2]
            return (
                not name.is_word
                or known.is_number(name.text)
                or (token.value >= LARGE and known.is_drug(name.text))
                or name.text in known.beside.plain
            )
    return True


def is_year(value: Fraction | None) -> bool:
    """Whether a number may be a year."""
    return value is not None and _YEARS[0] <= value < _YEARS[1]


def read(row: Sequence[Token], at: int) -> Amount:
    """The number that begins at a token."""
    known = terms()
    groups = [_Group()]
    product = False
    end = at
    while end < len(row) and end - at < _LONGEST_RUN:
        token = row[end]
        if end > at and (size := groups[-1].magnify(row, end)):
            end += size
            continue
        if is_number(row, end):
            if not groups[-1].add(row, end):
                after = row[end + 1].text if end + 1 < len(row) else ""
                if after in (known.often.days if token.text == "one" else known.often.times - _SIGNS):
                    break  # `500 three times a day`, `8 one day and 9 the next`
                product = True
                groups.append(_Group())
                groups[-1].add(row, end)
            end += 1
            continue
        link = _link(row, end)
        if not link:
            break
        words = [each.text for each in row[end : end + link]]
        following = row[end + link]
        fraction = following.text in known.parts or (following.value is not None and following.value < 1)
        if words == ["point"]:
            groups[-1].decimals = Fraction(1)
        elif words in (["/"], ["⁄"]) and following.value and groups[-1].over(following.value):
            end += 1
        elif fraction and set(words) <= {"and", "a", "an", "-", "of"}:
            groups[-1].added = "and" in words
        elif (
            words in (["-"], ["and"], ["‑"], ["a"]) and token.text != "–" and _spelt(row[end - 1]) and _spelt(following)
        ):
            pass
        elif (
            words in (["×"], ["x"])
            and (following.text == "10")
            and end + link + 1 < len(row)
            and _power(row, end + link + 1)
        ):
            groups[-1].value = (groups[-1].value or _ZERO) * _power(row, end + link + 1)
            end += 2 + (row[end + link + 1].text == "^")
        else:
            product = product or bool(set(words) & known.beside.products)
            groups.append(_Group(added_to=words in (["plus"], ["+"])))
        end += link
    values = tuple(dict.fromkeys(_added(groups)))
    return Amount(end, values, product and len(values) > 1)


def _added(groups: Sequence["_Group"]) -> list[Fraction]:
    """The values of groups, those of `400 + 400` as their sum."""
    made: list[Fraction] = []
    for group in groups:
        if group.value is not None:
            made.append(group.total() + (made.pop() if group.added_to and made else 0))
    return made


def _spelt(token: Token) -> bool:
    return token.value is None and terms().is_number(token.text)


def _power(row: Sequence[Token], at: int) -> Fraction:
    """What a raised number makes of a ten before it; 0 for none."""
    token = row[at]
    text = row[at + 1].text if token.text == "^" and at + 1 < len(row) else token.text.translate(_POWERS)
    raised = token.text == "^" or token.text[0] in "²³⁰¹⁴⁵⁶⁷⁸⁹"
    return Fraction(10) ** int(text) if raised and text.isdigit() and len(text) < 3 else _ZERO


def _link(row: Sequence[Token], at: int) -> int:
    """How many tokens lead on to another number; 0 when none follows."""
    links = terms().beside.links | {"point"}
    for length in range(1, _LONGEST_LINK + 1):
        if at + length >= len(row) or row[at + length - 1].text not in links:
            return 0
        if is_number(row, at + length):
            return length
    return 0


class _Group:
    """One number while it is read."""

    def __init__(self, *, added_to: bool = False) -> None:
        self.added_to = added_to
        self.value: Fraction | None = None
        self.sum = _ZERO
        self.last: Token | None = None
        self.added = False
        self.decimals = _ZERO

    def add(self, row: Sequence[Token], at: int) -> bool:
        """Take one more token; False when it is a number of its own."""
        known, token = terms(), row[at]
        value = token.value if token.value is not None else known.numbers.get(token.text)
        if token.text in known.parts:
            self._add_part(known.parts[token.text])
        elif token.text in known.scales:
            self._add_scale(known.scales[token.text])
        elif value is None or not self._add_value(row, at, value):
            return False
        self.added = False
        self.last = token
        return True

    def magnify(self, row: Sequence[Token], at: int) -> int:
        """How many tokens the `k` of `5k` or the `e3` of `5e3` is; 0 for none."""
        token, ahead = row[at], row[at + 1 : at + 2]
        if token.text == "k" and token.glued:
            self.value = (self.value or _ZERO) * 1000
            return 1
        if token.text == "e" and token.glued and ahead and ahead[0].glued and ahead[0].text.isdigit():
            self.value = (self.value or _ZERO) * Fraction(10) ** min(int(ahead[0].text[:3]), 99)
            return 2
        return 0

    def _add_part(self, part: Fraction) -> None:
        if self.added and self.value is not None:
            self.sum, self.value = self.sum + self.value, part
        else:
            self.value = (Fraction(1) if self.value is None else self.value) * part

    def _add_scale(self, scale: Fraction) -> None:
        if scale >= 1000 or self.value is None:
            self.sum, self.value = (self.sum + (self.value or 0) or Fraction(1)) * scale, _ZERO
        else:
            self.value *= scale

    def _add_value(self, row: Sequence[Token], at: int, value: Fraction) -> bool:
        if self.value is None:
            self.value = value
        elif self.decimals:
            self.decimals /= 10
            self.value += value * self.decimals
        elif self._thousands(row[at]) and self.sum == 0:
            self.value = self.value * 1000 + value
        elif self._fraction(row, at):
            self.sum, self.value = self.sum + self.value, value
        elif (
            0 < value < 1 and not (row[at].text[0] in ".0" and self.last and self.last.value is None)
        ) or self._goes_on(row[at], value):
            self.value += value
        else:
            return False
        return True

    def over(self, below: Fraction) -> bool:
        """Divide the last number by what stands under it."""
        if not self.value or below <= 0:
            return False
        self.value /= below
        return True

    def total(self) -> Fraction:
        return self.sum + (self.value or 0) if self.sum else self.value or _ZERO

    def _thousands(self, token: Token) -> bool:
        last = self.last
        return bool(
            last
            and last.text.isdigit()
            and token.text.isdigit()
            and len(token.text) == 3
            and len(last.text) <= 3
            and not token.glued
        )

    def _fraction(self, row: Sequence[Token], at: int) -> bool:
        """`1/2` after `1`."""
        ahead, above = row[at + 1 : at + 3], row[at].value
        if len(ahead) < 2 or ahead[0].text not in "/⁄" or not ahead[0].glued:
            return False
        below = ahead[1].value
        return above is not None and below is not None and below > above

    def _goes_on(self, token: Token, value: Fraction) -> bool:
        """`twenty` and `five`; `hundred` and `twenty`."""
        last = self.last
        if last is None or last.value is not None or token.value is not None:
            return False
        known = terms()
        if last.text in known.scales:
            return value < known.scales[last.text]
        before = known.numbers.get(last.text, _ZERO)
        return before >= 20 and value < 10
