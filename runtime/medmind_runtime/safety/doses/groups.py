"""Whom a dose is for: babies, children, adults, old people, pregnant women, people who weigh little.

Knows the words for them, ages and weights, and where they stand in a dose's sentence. Knows neither drugs nor amounts.
"""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

from medmind_runtime.safety.doses import senses
from medmind_runtime.safety.doses.amounts import is_number, read
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms

_BABY, _GROWN, _OLD, _OLDEST, _LIGHT = 2, 18, 65, 120, 50
"""Years below which one is a baby, from which one is an adult, from which one is old, the most; kilograms below which
one is light."""
_NEAR = 4
GENERAL = frozenset({"adult", "women", "men"})
"""Groups that a dose without one is for."""


def told(row: Sequence[Token], mention: Mention, mentions: Sequence[Mention], *, strict: bool) -> frozenset[str]:
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
    found = next(filter(None, (named(row, *gap) for gap in gaps)), frozenset[str]())
    if strict and not named(row, mention.last, mentions[stop].first):  # `women take it before and in pregnancy`
        found |= named(row, mentions[stop].last, last)
    return found if found or strict else _of_sentence_before(row, first)


def fits(mine: frozenset[str], theirs: frozenset[str]) -> bool:
    """Whether a dose for one group may be taken from a passage that names another, or none."""
    wider = terms().wider_groups
    return not theirs or all(group in theirs or wider.get(group) in theirs for group in mine)


def named(row: Sequence[Token], first: int, last: int) -> frozenset[str]:
    """All groups between two places of a text."""
    known, made = terms(), set[str]()
    for at in range(max(0, first), min(last, len(row))):
        token = row[at]
        group = known.groups.get(token.text, "")
        if not group and _text(row, at + 1) in known.grown.people:
            group = known.group_adjectives.get(token.text, "")
        product = at + 1 < len(row) and known.is_drug(row[at + 1].text)  # `baby aspirin`
        if group and not product and not _exempt(row, at):
            made.add(group)
        elif is_number(row, at):
            made |= _of_age(row, at) or _of_weight(row, at)
    if made & {"child", "baby"}:
        made.discard("light")
    for group, narrower in known.narrower_groups.items():
        if narrower in made:
            made.discard(group)
    return frozenset(made)


def _of_sentence_before(row: Sequence[Token], first: int) -> frozenset[str]:
    """`For babies cetirizine is fine. Give 10 mg.`; not where it warns."""
    begin = first - 1
    while begin > 0 and row[begin - 1].text != "." and first - begin < senses.LONGEST:
        begin -= 1
    words = {token.text for token in row[max(0, begin) : first]}
    return named(row, begin, first) if words.isdisjoint(terms().negations | terms().harm.keys()) else frozenset()


def _text(row: Sequence[Token], at: int) -> str:
    return row[at].text if 0 <= at < len(row) else ""


def _number(row: Sequence[Token], at: int) -> tuple[Fraction | None, int]:
    """The first value of a number and its end; none of one that cannot be read."""
    amount = read(row, at)
    return next((value for value in amount.values if value >= 0), None), amount.end


def _exempt(row: Sequence[Token], at: int) -> bool:
    """`not for children`, `unless you are pregnant`."""
    grown = terms().grown
    at -= 1
    while at >= 0 and row[at].text in grown.exempt_between:
        at -= 1
    return _text(row, at) in grown.exempt


def _of_age(row: Sequence[Token], at: int) -> frozenset[str]:
    """`a 3-year-old`, `people over 65`, `12 years and over`, `aged 70`."""
    grown, (value, end) = terms().grown, _number(row, at)
    end += _text(row, end) == "-"
    unit = _text(row, end)
    lived = unit in grown.lived
    if value is None or value > _OLDEST or not (lived or _counts_nothing(unit)):
        return frozenset()
    behind = [text for text in (_text(row, place) for place in range(end + lived, end + 3)) if text not in grown.joined]
    after = behind[0] if lived and behind else ""
    before = [text for text in (_text(row, place) for place in range(at - 1, at - 4, -1)) if text not in grown.joined]
    bounds = {after, *before[:1]} & (grown.over | grown.under)
    aged = before[:1] and (before[0] in grown.aged or (bool(bounds) and {*before[1:2]} & (grown.people | grown.aged)))
    if not aged and after not in grown.old | grown.over | grown.under:
        return frozenset()
    years = value / 12 if unit in grown.months else Fraction(0) if unit in grown.weeks else value
    return _of_years(years, over=bool(bounds & grown.over), under=bool(bounds & grown.under))


def _counts_nothing(text: str) -> bool:
    """Whether a number before this word may be an age: `people over 65 need`."""
    return text not in terms().beside.counted and (not text or terms().unit([text], 0) is None)


def _of_years(years: Fraction, *, over: bool, under: bool) -> frozenset[str]:
    """The groups of an age, or of all above or below it."""
    below = years - 1 if under else years
    if below < _BABY and not over:
        return frozenset({"baby"})
    if over and years < _GROWN - 1:
        return frozenset({"child", "teen", "adult"})
    if below < _GROWN and not over:
        return frozenset({"child"})
    return frozenset({"elderly"}) if years >= _OLD - 5 * over and not under else frozenset({"adult"})


def _of_weight(row: Sequence[Token], at: int) -> frozenset[str]:
    """`if you weigh under 50 kg`, `adults under 50 kg`."""
    grown, (value, end) = terms().grown, _number(row, at)
    before = [_text(row, place) for place in range(at - 1, at - 2 - _NEAR, -1)]
    if value is None or _text(row, end) not in grown.kilograms:
        return frozenset()
    if grown.weighing.isdisjoint(before) and before[0] not in grown.under:
        return frozenset()
    light = not grown.under.isdisjoint(before) or (value < _LIGHT and grown.over.isdisjoint(before))
    return frozenset({"light"}) if light else frozenset()
