"""In which sense a dose is said: to be taken, the most, too much. Knows sentences and clauses, no drugs."""

from collections.abc import Collection, Sequence

from medmind_runtime.safety.doses.amounts import is_number
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms

LONGEST = 80
"""Tokens of a sentence on either side of a dose."""


def sense(row: Sequence[Token], mention: Mention, before: int, after: int, *, strict: bool) -> str:
    """`take`, `most` or `harm`.

    Args:
        row: tokens of a text.
        mention: a dose of it.
        before, after: where the dose before it ends, and where the next one begins.
        strict: a word of harm anywhere in the sentence counts, not only beside the dose.
    """
    first, last = sentence(row, mention)
    known = terms()
    ends = known.naming.clause_ends
    near_first, near_last = mention.first, mention.last
    while near_first > max(first, before) and row[near_first - 1].text not in ends | {":"}:
        near_first -= 1
    while near_last < min(last, after) and row[near_last].text not in ends:
        near_last += 1
    if strict and last + 1 < len(row) and row[last + 1].text in known.naming.resumes:
        following = last + 1
        last = next((at for at in range(following, min(len(row), following + LONGEST)) if row[at].text == "."), last)
    harm = (first, last) if strict else (near_first, near_last)
    if _has(row, known.harm, *harm):
        return "harm"
    others = _ages(row, near_first, mention.first - 1) | _ages(row, mention.last, near_last)
    others |= {at for at in range(mention.last, near_last) if _numbers_after(row, at)}
    others |= {at for at in range(near_first, mention.first) if _of_person(row, at, mention.first)}
    others |= {at for at in range(max(2, near_first), near_last) if _after_age(row, at)}
    return "most" if _has(row, known.most, near_first, near_last, others) else "take"


def sentence(row: Sequence[Token], mention: Mention) -> tuple[int, int]:
    """Where the sentence of a dose begins and ends."""
    first, last = mention.first, mention.last
    while first and row[first - 1].text != "." and mention.first - first < LONGEST:
        first -= 1
    while last < len(row) and row[last].text != "." and last - mention.last < LONGEST:
        last += 1
    return first, last


def _ages(row: Sequence[Token], first: int, last: int) -> set[int]:
    """The places of what stands between people and their age: `children under 15`."""
    places = range(first + 1, min(last, len(row) - 1))
    return {at for at in places if row[at - 1].text in terms().naming.aged and row[at + 1].value is not None}


def _numbers_after(row: Sequence[Token], at: int) -> list[int]:
    """The place of the number after a phrase of the most: it is that one's in `500 mg up to 4 times a day`."""
    phrases = (p for p in terms().most.get(row[at].text, ()) if tuple(t.text for t in row[at : at + len(p)]) == p)
    return [at + len(p) for p in phrases if at + len(p) < len(row) and is_number(row, at + len(p))]


def _of_person(row: Sequence[Token], at: int, first: int) -> bool:
    """Whether the most before a dose is of a weight or an age: `less than 35 kg take 6 mg`."""
    units = terms().grown.kilograms | terms().grown.lived
    return any(place + 1 < first and row[place + 1].text in units for place in _numbers_after(row, at))


def _after_age(row: Sequence[Token], at: int) -> bool:
    """Whether it is the `over` of `16 and over`, `12 years or above`."""
    age = row[at - 2].value is not None or row[at - 2].text in terms().grown.lived
    return age and row[at - 1].text in {"and", "or"} and row[at].text in terms().grown.over - {"more", "least", "from"}


def _has(
    row: Sequence[Token],
    phrases: dict[str, list[tuple[str, ...]]],
    first: int,
    last: int,
    but: Collection[int] = (),
) -> bool:
    return any(
        at not in but
        and row[at].text in phrases
        and _begins(row, phrases, at)
        and not _begins(row, terms().no_most, at)
        for at in range(first, last)
    )


def _begins(row: Sequence[Token], phrases: dict[str, list[tuple[str, ...]]], at: int) -> bool:
    return any(
        tuple(token.text for token in row[at : at + len(phrase)]) == phrase for phrase in phrases.get(row[at].text, ())
    )
