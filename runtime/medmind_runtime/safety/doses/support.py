"""Whether a passage has a dose of an answer, for the same drug and in the same sense. Knows no stream."""

from collections.abc import Sequence
from copy import copy

from medmind_runtime.safety.doses import mentions, often, subjects
from medmind_runtime.safety.doses.drugs import against, drugs
from medmind_runtime.safety.doses.reading import Token, tokens
from medmind_runtime.safety.doses.subjects import Said
from medmind_runtime.safety.doses.terms import terms

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
        self._drugs: set[str] = set()
        for text in texts:
            row = read(text)
            for found in (mentions.find(row, source=True), often.find(row, source=True)):
                self._said += subjects.said(row, list(found), strict=True)
            self._drugs |= drugs(row)
        self._ask(asked)

    def when_asked(self, asked: str) -> "Passages":
        """The same passages, for another question."""
        made = copy(self)
        made._ask(asked)
        return made

    def _ask(self, asked: str) -> None:
        words = {token.text for token in tokens(asked)}
        self.asked = drugs(tokens(asked))
        self.drug_asked = bool(self.asked) and terms().beside.checking.isdisjoint(words)
        self.dose_asked = self.drug_asked and terms().beside.asking_else.isdisjoint(words)

    def have(self, claim: Said, inherited: frozenset[str] = frozenset(), *, any_unit: bool = False) -> bool:
        """Whether one of them has it.

        Args:
            claim: the dose of an answer.
            inherited: the drug that was named before, if the answer's sentence names none.
            any_unit: the unit is not known.
        """
        names = claim.drugs or inherited or self.asked
        if any(_quoted(claim, names, known) for known in self._said):
            return True
        if not names and len(self._drugs) > 1:
            return False
        return any(
            _same(claim, known, any_unit) and known.kind in _SENSES[claim.kind] and self._of_same(names, known)
            for known in self._said
        )

    @staticmethod
    def _of_same(names: frozenset[str], known: Said) -> bool:
        theirs = known.drugs or known.words
        named = against(known.words) if known.drugs <= against(known.words) else against(known.drugs)
        return names <= theirs or names <= theirs | named


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
    return row


def _same(claim: Said, known: Said, any_unit: bool) -> bool:
    mine, theirs = claim.mention, known.mention
    if mine.word != theirs.word or (not mine.word and min(mine.values) < 0):  # what cannot be read equals nothing
        return False
    if not (
        (any_unit and theirs.unit != often.UNIT)
        or mine.unit == theirs.unit
        or ("count" in {mine.unit, theirs.unit} and {mine.unit, theirs.unit} <= terms().unit_lists.pieces)
        or ("vaccine" in claim.drugs & known.drugs and {mine.unit, theirs.unit} <= terms().unit_lists.of_vaccines)
    ):
        return False
    body = terms().rates.body
    if mine.rates & body != theirs.rates & body or not mine.rates <= theirs.rates:
        return False
    if mine.values == theirs.values:
        return mine.product == theirs.product
    if theirs.product and theirs.values[0] == 1 and mine.values == theirs.values[-1:]:  # `one or two 500 mg tablets`
        return True
    return len(mine.values) == 1 and not theirs.product and mine.values[0] in theirs.values
