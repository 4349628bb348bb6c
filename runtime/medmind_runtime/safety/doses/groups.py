"""Whom a dose is for: babies, children, adults, old people, pregnant women, people who weigh little.

Knows the words for them, ages and weights, and where they stand in a dose's sentence. Knows neither drugs nor amounts.
"""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from medmind_runtime.safety.doses import senses
from medmind_runtime.safety.doses.amounts import Amount, is_number, read
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token, text_at
from medmind_runtime.safety.doses.terms import terms

_BABY, _GROWN, _OLD, _OLDEST, _LIGHT = 2, 18, 65, 120, 50
"""Years below which one is a baby, from which one is an adult, from which one is old, the most; kilograms below which
one is light."""
_NEAR, _BESIDE = 4, 5
_PARTED = frozenset({".", "and", ";"})
"""Between a person and another one's age."""
_GENERAL = frozenset({"adult", "women", "men"})
"""Groups that a dose without one is for."""
_BANDS = {"baby": (0, _BABY), "child": (_BABY, 12), "teen": (12, _GROWN), "adult": (_GROWN, 60), "elderly": (_OLD, 200)}
_ANY_AGE = Fraction(200)
_OF_AGE = frozenset(_BANDS)


class Ages(NamedTuple):
    """Years from which and below which it is for one."""

    low: Fraction
    high: Fraction

    @property
    def bands(self) -> frozenset[str]:
        """The groups that have somebody of such an age."""
        return frozenset(name for name, (low, high) in _BANDS.items() if self.low < high and low < self.high)


Group = str | Ages
Groups = frozenset[Group]


def told(row: Sequence[Token], mention: Mention, mentions: Sequence[Mention], *, strict: bool) -> Groups:
    """The groups that a dose is for: named before it where the sentence begins so, else behind it.

    Args:
        row: tokens of a text.
        mention: a dose of it.
        mentions: all that is said in it of doses and how often, in its order.
        strict: only its own sentence is read, and not the one before.
    """
    first, last = senses.sentence(row, mention)
    start = stop = place = bisect_left(mentions, mention.first, key=lambda other: other.first)
    while start and mentions[start - 1].first >= first:
        start -= 1
    while stop + 1 < len(mentions) and mentions[stop + 1].first < last:
        stop += 1
    if named(row, first, mentions[start].first):
        gaps = [
            (mentions[at - 1].last if at > start else first, mentions[at].first) for at in range(place, start - 1, -1)
        ]
    else:
        gaps = [(mentions[at].last, mentions[at + 1].first if at < stop else last) for at in range(place, stop + 1)]
    found = next(filter(None, (named(row, *gap) for gap in gaps)), frozenset[Group]())
    if strict and not named(row, mention.last, mentions[stop].first):  # `women take it before and in pregnancy`
        found |= named(row, mentions[stop].last, last)
    return found if found or strict else _of_sentence_before(row, first)


def fits(mine: Groups, theirs: Groups) -> bool:
    """Whether a dose for one group may be taken from a passage that names another, or none."""
    return not theirs or all(_among(group, theirs) for group in mine)


def special(groups: Groups) -> bool:
    """Whether they are others than those that a dose without a group is for."""
    return any(not ({group} if isinstance(group, str) else group.bands) <= _GENERAL for group in groups)


def _among(group: Group, theirs: Groups) -> bool:
    ages = [other for other in theirs if isinstance(other, Ages)]
    if isinstance(group, Ages):
        inside = any(other.low <= group.low and group.high <= other.high for other in ages)
        return inside or all(_is_or_wider(band, theirs) for band in group.bands)
    return _is_or_wider(group, theirs) or any(_is_or_wider(group, other.bands) for other in ages)


def _is_or_wider(group: str, theirs: frozenset[Group] | frozenset[str]) -> bool:
    return group in theirs or terms().wider_groups.get(group) in theirs


def named(row: Sequence[Token], first: int, last: int) -> Groups:
    """All groups between two places of a text; an age tells more than the word beside it, as in `my son is 30`."""
    made: set[Group] = set()
    words: list[tuple[int, str]] = []
    at, last = max(0, first), min(last, len(row))
    while at < last:
        group = _of_word(row, at)
        if group:
            words.append((at, group))
        elif is_number(row, at):
            amount = read(row, at)
            beside = words[-1] if words and at - words[-1][0] <= _BESIDE and words[-1][1] in _OF_AGE else None
            if ages := _of_age(row, at, amount, beside[1] if beside and beside[0] >= at - 2 else ""):
                if beside and not any(token.text in _PARTED for token in row[beside[0] : at]):
                    words.pop()
                made.add(ages)
                at = _after_age(row, amount.end)
                continue
            made |= _of_weight(row, at, amount)
            at = max(at, amount.end - 1)
        at += 1
    made |= {group for _, group in words}
    if any(group in {"child", "baby"} if isinstance(group, str) else group.high <= _GROWN for group in made):
        made.discard("light")
    for group, narrower in terms().narrower_groups.items():
        if narrower in made:
            made.discard(group)
    return frozenset(made)


def _of_word(row: Sequence[Token], at: int) -> str:
    """The group that a word names; empty for none, or one that is left out."""
    known, text = terms(), row[at].text
    group = known.groups.get(text, "")
    if not group and text_at(row, at + 1) in known.grown.people:
        group = known.group_adjectives.get(text, "")
    product = bool(group) and at + 1 < len(row) and known.is_drug(row[at + 1].text)  # `baby aspirin`
    product = product and known.grown.giving.isdisjoint(token.text for token in row[max(0, at - _NEAR) : at])
    return group if group and not product and not _exempt(row, at) else ""


def _after_age(row: Sequence[Token], end: int) -> int:
    """The place after `year-old child`: of `6-year-old child` the age tells all."""
    grown, place = terms().grown, end
    while place < len(row) and place < end + _BESIDE and row[place].text in grown.lived | grown.old | {"-"}:
        place += 1
    old = place > end and row[place - 1].text in grown.old
    return place + (old and terms().groups.get(text_at(row, place)) in _OF_AGE)


def _of_sentence_before(row: Sequence[Token], first: int) -> Groups:
    """`For babies cetirizine is fine. Give 10 mg.`; not where it warns."""
    begin = first - 1
    while begin > 0 and row[begin - 1].text != "." and first - begin < senses.LONGEST:
        begin -= 1
    words = {token.text for token in row[max(0, begin) : first]}
    return named(row, begin, first) if words.isdisjoint(terms().negations | terms().harm.keys()) else frozenset()


def _exempt(row: Sequence[Token], at: int) -> bool:
    """`not for children`, `unless you are pregnant`."""
    grown = terms().grown
    at -= 1
    while at >= 0 and row[at].text in grown.exempt_between:
        at -= 1
    return text_at(row, at) in grown.exempt


def _of_age(row: Sequence[Token], at: int, amount: Amount, group: str) -> Ages | None:
    """`a 3-year-old`, `people over 65`, `12 years and over`, `aged 70`, `children 6 to 12 years`.

    Args:
        row: tokens of a text.
        at: a number of it.
        amount: that number.
        group: of the word beside it, if that tells an age.
    """
    grown, end = terms().grown, amount.end
    values = [value for value in (amount.values[-1:] if amount.product else amount.values) if value >= 0]
    end += text_at(row, end) == "-"
    unit = text_at(row, end)
    lived = unit in grown.lived
    if not values or max(values) > _OLDEST or not (lived or _counts_nothing(unit)):
        return None
    behind = [
        text for text in (text_at(row, place) for place in range(end + lived, end + 3)) if text not in grown.joined
    ]
    sided = lived or text_at(row, end) in {"and", "or"}
    after = behind[0] if behind and sided else ""
    before = [text for text in (text_at(row, place) for place in range(at - 1, at - 4, -1)) if text not in grown.joined]
    bounds = {after, *before[:1]} & (grown.over | grown.under)
    people = grown.people | grown.aged | {word for word, named in terms().groups.items() if named in _OF_AGE}
    aged = before[:1] and (before[0] in grown.aged or (bool(bounds) and not people.isdisjoint(before[:2])))
    aged = aged or (lived and bool(group))
    after_counts = grown.old | grown.over | grown.under if lived else grown.over - {"from", "least", "more"}
    if not aged and after not in after_counts:
        return None
    year = Fraction(1, 12) if unit in grown.months else Fraction(1, 52) if unit in grown.weeks else Fraction(1)
    year = Fraction(1, 365) if unit in {"day", "days"} else year
    low, high = min(values) * year, (max(values) + 1) * year
    if bounds & grown.under and not bounds & grown.over:
        low, high = Fraction(0), max(values) * year
    elif bounds & grown.over:
        low = Fraction(_GROWN) if low == _GROWN - 1 else low
        high = _ANY_AGE if len(values) == 1 else high
        if group in {"baby", "child", "teen"}:
            high = min(high, Fraction(_GROWN))
        elif group == "adult" and low < _BANDS["adult"][1]:
            high = Fraction(_OLD)
    return Ages(low, high) if low < high else None


def _counts_nothing(text: str) -> bool:
    """Whether a number before this word may be an age: `people over 65 need`."""
    return text not in terms().beside.counted and (not text or terms().unit([text], 0) is None)


def _of_weight(row: Sequence[Token], at: int, amount: Amount) -> frozenset[str]:
    """`if you weigh under 50 kg`, `adults under 50 kg`."""
    grown, end = terms().grown, amount.end
    value = next((value for value in amount.values if value >= 0), None)
    before = [text_at(row, place) for place in range(at - 1, at - 2 - _NEAR, -1)]
    if value is None or text_at(row, end) not in grown.kilograms:
        return frozenset()
    if grown.weighing.isdisjoint(before) and before[0] not in grown.under:
        return frozenset()
    light = not grown.under.isdisjoint(before) or (value < _LIGHT and grown.over.isdisjoint(before))
    return frozenset({"light"}) if light else frozenset()
