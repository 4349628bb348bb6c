"""Whether a passage has a dose of an answer, for the same drug and in the same sense. Knows no stream."""

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from medmind_runtime.safety.doses import groups, mentions, often, patients, spelt, subjects
from medmind_runtime.safety.doses.drugs import against, drugs
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token, tokens
from medmind_runtime.safety.doses.subjects import Said
from medmind_runtime.safety.doses.terms import ANY_UNIT, terms

_SENSES = {"take": {"take"}, "most": {"take", "most"}, "harm": {"most", "harm"}}
"""Which senses of a passage's dose support an answer's: a maximum is no dose to take."""


class Passages:
    """The doses of all passages.

    Args:
        texts: of the passages.
        asked: the question, whose drug is meant where an answer names none.

    Attributes:
        asked: the drugs of the question.
        drug_asked, dose_asked: how often alone, or a dose alone, may answer it.
    """

    def __init__(self, texts: Sequence[str], asked: str = "") -> None:
        self._said: list[Said] = []
        self._drugs: set[frozenset[str]] = set()
        for text in texts:
            row = read(text)
            amounts, times = list(mentions.find(row, source=True)), list(often.find(row, source=True))
            doses = subjects.said(row, amounts, times, strict=True)
            self._said += [*doses, *_counts_of_strengths(doses)]
            self._said += subjects.said(row, times, amounts, strict=True)
            self._drugs |= subjects.named(row)
        self._several = subjects.several(self._drugs)
        self._ask(asked)

    def when_asked(self, asked: str) -> "Passages":
        """The same passages, for another question."""
        made = copy(self)
        made._ask(asked)
        return made

    def _ask(self, asked: str) -> None:
        row = list(tokens(asked))
        words = {token.text for token in row}
        self.asked = drugs(row)
        self._asked_for = patients.named(row)
        self.drug_asked = bool(self.asked) and terms().answering.checking.isdisjoint(words)
        self.dose_asked = self.drug_asked and terms().answering.asking_else.isdisjoint(words)

    def have(self, claim: Said, inherited: frozenset[str] = frozenset(), *, any_unit: bool = False) -> bool:
        """Whether one of them has it.

        Args:
            claim: the dose of an answer.
            inherited: the drug that was named before, if the answer's sentence names none.
            any_unit: the unit is not known.
        """
        drugless = claim.mention.unit in terms().unit_lists.drugless
        names = frozenset() if drugless else claim.drugs or inherited or self.asked
        if any(_quoted(claim, names, known) for known in self._said):
            return True
        unnamed = not names and self._several and not drugless
        theirs = [] if unnamed else [known for known in self._said if self._of_same(names, known)]
        meant = _for_whom(claim, claim.groups or self._asked_for, theirs)
        if any(_same(claim, known, any_unit) and known.kind in _SENSES[claim.kind] for known in meant):
            return True
        return (
            claim.mention.unit == often.UNIT
            and claim.mention.values == often.DAILY
            and not _too_often(claim, names, theirs)
        )

    @staticmethod
    def _of_same(names: frozenset[str], known: Said) -> bool:
        theirs = known.drugs or known.words
        named = against(known.words) if known.drugs <= against(known.words) else against(known.drugs)
        return names <= theirs or names <= theirs | named


def _for_whom(claim: Said, mine: groups.Groups, theirs: Sequence[Said]) -> list[Said]:
    """The doses that are not another group's; nor everybody's, where its own one is given."""
    special = groups.special(mine) and claim.kind == "take"
    own = special and any(
        known.groups and known.kind == "take" and groups.fits(mine, known.groups) and _same_unit(claim, known)
        for known in theirs
    )
    return [known for known in theirs if groups.fits(mine, known.groups) and (known.groups or not own)]


def _too_often(claim: Said, names: frozenset[str], theirs: Sequence[Said]) -> bool:
    """Whether every day is too much: a passage has less, or the drug is one of a week. Else it needs no source."""
    seldom = any(known.mention.unit == often.UNIT and max(known.mention.values) < 1 for known in theirs)
    return claim.kind != "harm" and (seldom or (bool(names) and names <= terms().weekly))


def _counts_of_strengths(doses: Sequence[Said]) -> list[Said]:
    """`Two paracetamol 500 mg tablets`, `500 mg tablets: take two`, as the product that they are."""
    made = []
    pieces, sentences = terms().unit_lists.pieces, Counter(dose.sentence for dose in doses if _is_strength(dose))
    for one, other in pairwise(doses):
        count, strength = (one, other) if one.mention.unit in pieces else (other, one)
        alike = one.sentence == other.sentence and sentences[one.sentence] == 1 and one.drugs & other.drugs
        if alike and count.mention.unit in pieces and not count.mention.word and _is_strength(strength):
            values = (*count.mention.values, *strength.mention.values)
            made.append(replace(count, mention=replace(strength.mention, values=values, product=True)))
    return made


def _is_strength(dose: Said) -> bool:
    return len(dose.mention.values) == 1 and dose.mention.unit in {"mg", "unit"} and not dose.mention.rates


def _quoted(claim: Said, names: frozenset[str], known: Said) -> bool:
    """Whether an answer's sentence is the passage's, as far as it is there: of the same drug, with no word of harm."""
    if known.kind == "harm" or claim.mention.values != known.mention.values or claim.mention.unit != known.mention.unit:
        return False
    same_drug = names <= claim.words or bool(names & known.drugs)
    return same_drug and bool(claim.sentence) and known.sentence.startswith(claim.sentence)


def read(text: str) -> list[Token]:
    """The tokens of a whole text, its lines' ends among them."""
    row: list[Token] = []
    at = 0
    for line in text.splitlines(keepends=True):
        row += tokens(line, at)
        at += len(line)
        if line.endswith("\n"):
            row.append(Token("\n", at - 1, at))
    return spelt.joined(row)[0]


def _same(claim: Said, known: Said, any_unit: bool) -> bool:
    mine, theirs = claim.mention, known.mention
    if mine.word != theirs.word or (not mine.word and min(mine.values) < 0):  # what cannot be read equals nothing
        return False
    if any_unit and theirs.unit not in {often.UNIT, often.IN_ALL}:
        return _same_amount(mine, theirs)
    if mine.unit == ANY_UNIT.name != theirs.unit:
        own = theirs.size or Fraction(1)  # `go up to 50` is of mcg where the passage has them; of 1 g, 1000 is mg
        sizes = {mine.size} if mine.size and theirs.unit == "mg" else {own, min(own, Fraction(1))}
        of_any = theirs.unit not in {often.UNIT, often.IN_ALL}
        return of_any and any(_same_amount(_times(mine, size), theirs) for size in sizes)
    return _same_unit(claim, known) and _same_amount(mine, theirs)


def _times(mention: Mention, size: Fraction) -> Mention:
    return replace(mention, values=tuple(value * size for value in mention.values))


def _same_unit(claim: Said, known: Said) -> bool:
    mine, theirs = claim.mention.unit, known.mention.unit
    unit_lists, both = terms().unit_lists, {mine, theirs}
    return (
        mine == theirs
        or ("count" in both and both <= unit_lists.pieces | {ANY_UNIT.name})
        or (mine == often.IN_ALL and theirs == often.UNIT)
        or ("vaccine" in claim.drugs & known.drugs and both <= unit_lists.of_vaccines)
    )


def _same_amount(mine: Mention, theirs: Mention) -> bool:
    body = terms().rates.body
    if mine.rates & body != theirs.rates & body or not mine.rates <= theirs.rates:
        return False
    if mine.values == theirs.values:
        return mine.product == theirs.product
    if theirs.product and theirs.values[0] == 1 and mine.values == theirs.values[-1:]:  # `one or two 500 mg tablets`
        return True
    if mine.product and theirs.product and mine.values[-1] == theirs.values[-1]:
        return set(mine.values[:-1]) <= set(theirs.values[:-1])
    return len(mine.values) == 1 and not theirs.product and mine.values[0] in theirs.values
