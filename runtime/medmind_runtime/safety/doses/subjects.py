"""Which drug a dose is of.

Knows where a drug's name stands beside a dose. A capitalised or unknown word in that place is a drug of its own.
Knows not in which sense the dose is said; see `senses`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from medmind_runtime.safety.doses import groups, senses
from medmind_runtime.safety.doses.amounts import is_number
from medmind_runtime.safety.doses.drugs import drugs, is_drug, stem
from medmind_runtime.safety.doses.groups import Groups
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms

_AHEAD = 10
_BACK = 300
"""Tokens to look back for the drug that was named last."""
_ENDS = frozenset({".", "\n"})
_VACCINE = "vaccine"
_STOPS = _ENDS | {",", ":", "("}


@dataclass(frozen=True)
class Said:
    """A dose as it is said of a drug.

    Attributes:
        mention: the dose.
        drugs: the names it is of, one drug's; where it stands beside none, all that may be meant; empty where none is
            named.
        kind: in which sense it is said; see `senses.sense`.
        words: of the sentence, by their stems.
        sentence: in its words, with a full stop on each side where it has one.
        groups: whom it is for; empty where nobody is named.
    """

    mention: Mention
    drugs: frozenset[str]
    kind: str
    words: frozenset[str]
    sentence: str = ""
    groups: Groups = frozenset()


def said(
    row: Sequence[Token], mentions: Sequence[Mention], others: Sequence[Mention] = (), *, strict: bool
) -> list[Said]:
    """Each dose with its drug.

    Args:
        row: tokens of a text.
        mentions: its doses, in their order.
        others: what else is said of doses, in its order.
        strict: a word of harm anywhere in the sentence counts, not only beside the dose.
    """
    made: list[Said] = []
    everything = sorted([*mentions, *others], key=lambda mention: mention.first)
    named: dict[int, bool] = {}
    for place, mention in enumerate(mentions):
        before = mentions[place - 1].last if place else 0
        after = mentions[place + 1].first if place + 1 < len(mentions) else len(row)
        names = _names(row, mention, before, after, named, strict=strict)
        first, last = senses.sentence(row, mention)
        made.append(
            Said(
                _of_a_day(row, mention, min(after, last)) if strict else mention,
                names,
                senses.sense(row, mention, before, after, strict=strict),
                frozenset(stem(t.text) for t in row[first:last]),
                in_words(row[max(0, first - 1) : last + 1]) if first else f". {in_words(row[: last + 1])}",
                groups.told(row, mention, everything, strict=strict),
            )
        )
    return made


def in_words(row: Sequence[Token]) -> str:
    """Tokens with a space between, ends of lines left out."""
    return " ".join(token.text for token in row if token.text != "\n")


def _of_a_day(row: Sequence[Token], mention: Mention, end: int) -> Mention:
    """A dose as the day's, if what follows it says so after other words: `400 micrograms of folic acid daily`."""
    named = terms().rates
    for at in range(mention.last, min(end, mention.last + _AHEAD)):
        text = row[at].text
        if text in named.parts_of_a_day or text in _STOPS or is_number(row, at):
            break
        if text in named.within_a_day:
            following = [token.text for token in row[at + 1 : at + 4]]
            every = text not in named.of["day"] - named.alone or row[at - 1].text in named.per
            alone = following[:1] != ["of"] and (named.within_a_day | named.parts_of_a_day).isdisjoint(following)
            return replace(mention, rates=mention.rates | {"day"}) if every and alone else mention
    return mention


def _names(
    row: Sequence[Token], mention: Mention, before: int, after: int, named: dict[int, bool], *, strict: bool
) -> frozenset[str]:
    inside = range(mention.last - 1, mention.first - 1, -1)
    if (at := _first_named(row, inside, named)) is None and (ahead := _of(row, mention, after)):
        return ahead
    own = range(mention.first - 1, max(before, mention.first - senses.LONGEST) - 1, -1)
    ahead_of_it = range(mention.last, min(after, mention.last + _AHEAD))
    earlier = range(mention.first - 1, max(-1, mention.first - _BACK), -1)
    for found in (at, _directly_before(row, mention), _directly_after(row, mention, after)):
        if found is not None:
            return _run(row, found)
    for found in (
        _first_named(row, own, named, frozenset(".")),
        _first_named(row, ahead_of_it, named, _ENDS),
        _first_named(row, earlier, named),
    ):
        if found is not None:
            return _run(row, found) if strict else _run(row, found) | _others(row, found, before)
    return frozenset()


def _others(row: Sequence[Token], at: int, before: int) -> frozenset[str]:
    """The drugs named before one in its sentence: where a dose stands beside none, it may be any one's."""
    made: list[Token] = []
    while at > 0 and row[at - 1].text != "." and at != before and len(made) < senses.LONGEST:
        at -= 1
        made.append(row[at])
    return drugs(made)


def _first_named(
    row: Sequence[Token], places: range, named: dict[int, bool], ends: frozenset[str] = frozenset()
) -> int | None:
    for at in places:
        if at not in named:
            named[at] = _named(row, at)
        if named[at]:
            return at
        if ends and row[at].text in ends:
            return None
    return None


def _named(row: Sequence[Token], at: int) -> bool:
    """A drug's name, or a name in capitals within a sentence."""
    token = row[at]
    text = token.text
    if len(text) < 2 or not text[0].isalpha():
        return False
    if terms().is_drug(text):
        return True
    begins = at == 0 or not (row[at - 1].is_word or row[at - 1].text in {",", "/", "("})
    return not begins and token.written[:1].isupper() and _strange(token)


def _strange(token: Token) -> bool:
    known = terms()
    word = token.text
    return (
        token.is_word
        and len(word) > 2
        and word not in known.beside.plain
        and word not in known.beside.counted
        and word not in known.beside.modifiers
        and word not in known.unit_words.weighing
        and word not in known.beside.taking
        and stem(word) not in known.beside.plain
        and known.unit([word], 0) is None
        and not known.is_number(word)
    )


def _run(row: Sequence[Token], at: int) -> frozenset[str]:
    """A name with the others of the same drug: `ibuprofen (Advil)`, `insulin glargine`."""
    made = {stem(row[at].text)}
    for step in (-1, 1):
        place, gap = at + step, 0
        while 0 <= place < len(row) and gap < 4:
            if _named(row, place) or (
                gap == 0
                and step > 0
                and row[place].is_word
                and row[place].written[:1].isupper()
                and _strange(row[place])
            ):
                made.add(stem(row[place].text))
                gap = 0
            elif row[place].text in terms().naming.named_so or _is_a(row, place):
                gap += 1
            else:
                break
            place += step
    if _VACCINE in made and (against := _against(row, at)):
        made.add(against)
    return frozenset(made)


def named(row: Sequence[Token]) -> set[frozenset[str]]:
    """The drugs of a text, each by all names that stand together: `metronidazole is an antibiotic`."""
    return {_run(row, at) for at in range(len(row)) if is_drug(row[at])}


def several(named: Collection[frozenset[str]]) -> bool:
    """Whether they are not all of one drug: of those that share a name they are."""
    rest = set(named)
    one = rest.pop() if rest else frozenset()
    while same := {names for names in rest if names & one}:
        one, rest = one.union(*same), rest - same
    return bool(rest)


def _is_a(row: Sequence[Token], at: int) -> bool:
    """A word of `is an` between two names: `metronidazole is an antibiotic`."""
    begin = at if row[at].text in {"is", "are"} else at - 1
    pair = [token.text for token in row[max(0, begin) : begin + 2]]
    return pair in (["is", "a"], ["is", "an"], ["are", "a"], ["are", "an"])


def _against(row: Sequence[Token], at: int) -> str:
    """What a vaccine is against, where it stands before it: `tetanus vaccine`."""
    while at > 0 and stem(row[at].text) != _VACCINE:
        at -= 1
    return stem(row[at - 1].text) if at > 0 and (_strange(row[at - 1]) or row[at - 1].text in terms().same) else ""


def _of(row: Sequence[Token], mention: Mention, after: int) -> frozenset[str]:
    """`of the MMR vaccine`, right after a dose or its tablets."""
    at = mention.last
    while at < after and (terms().unit([row[at].text], 0) or row[at].text in terms().naming.before_of):
        at += 1
    if at >= len(row) or row[at].text != "of":
        return frozenset()
    made: list[str] = []
    for place in range(at + 1, min(len(row), at + 7)):
        text = row[place].text
        if not made and text in terms().naming.pronouns:
            return frozenset()
        if made and made[-1] == _VACCINE:
            break
        if _strange(row[place]) or _named(row, place):
            made.append(stem(text))
        elif made or text in _ENDS:
            break
    return frozenset(made[:4])


def _directly_before(row: Sequence[Token], mention: Mention) -> int | None:
    for at in range(mention.first - 1, max(-1, mention.first - 6), -1):
        token = row[at]
        if token.text == ".":
            return None
        if _named(row, at) or _strange(token):
            return at if _named(row, at) or _in_drug_position(row, at) else None
        if token.text not in terms().naming.before_number:
            return None
    return None


def _in_drug_position(row: Sequence[Token], at: int) -> bool:
    """What a strange word follows where it is a drug: the beginning, a verb of taking, `of`."""
    if row[at].written[:1].isupper():
        return True
    before = row[at - 1].text if at else "."
    return not before[:1].isalpha() or before in terms().beside.taking or before in terms().naming.before_drug


def _directly_after(row: Sequence[Token], mention: Mention, after: int) -> int | None:
    for at in range(mention.last, min(after, mention.last + 4)):
        token = row[at]
        if _named(row, at):
            return at
        if _strange(token) and at == mention.last and _after_is_drug(row, at):
            return at
        if (
            token.text not in terms().beside.modifiers
            and token.text not in {"(", "-", '"'}
            and not terms().unit([token.text], 0)
        ):
            return None
    return None


def _after_is_drug(row: Sequence[Token], at: int) -> bool:
    """`400 mg xanax every day`: a strange word and then none that it could belong to."""
    following = row[at + 1] if at + 1 < len(row) else None
    return following is None or not following.is_word or following.text in terms().beside.plain
