"""How much of what is held out training knows already, for any way of splitting. Splits nothing itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from medmind_train.data.clean import comparable
from medmind_train.data.components import SHORTEST, answer_text, focus_key, telling_shingles
from medmind_train.data.near import Twins
from medmind_train.data.ngrams import Words
from medmind_train.data.overlap import LIMIT, grams_of, shares
from medmind_train.data.rows import Row

QUESTION_GRAM = 2
"""Words in a shingle of a question."""
ANSWER_GRAM = 5


@dataclass(frozen=True)
class Leakage:
    """Shares of the held-out rows (of the held-out focuses: `focuses`) that training knows, from 0 to 1.

    Attributes:
        heldout, train: rows on the two sides.
        focuses: focuses that training has too.
        questions_exact, questions_near: the question, in the same words, or at Jaccard 0.8 of its pairs of words.
        answers_exact, answers_near: the answer, in the same words, or at Jaccard 0.8 of its runs of five words.
        answers_telling: as `answers_near`, with boilerplate ignored.
        answers_known: more than a fifth of the answer's 13-grams stand in training.
    """

    heldout: int
    train: int
    focuses: float
    questions_exact: float
    questions_near: float
    answers_exact: float
    answers_near: float
    answers_telling: float
    answers_known: float

    def to_dict(self) -> dict[str, float]:
        """As JSON holds it."""
        return asdict(self)


class Knowledge:
    """What rows have in common; made once, then asked for each way of splitting them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        answers = [answer_text(row) for row in rows]
        words = Words(answers)
        self._focuses = [focus_key(row) for row in rows]
        self._questions = [comparable(row.question) for row in rows]
        self._answers = [comparable(answer) for answer in answers]
        self._grams = grams_of(words)
        self._question_twins = Twins(Words([row.question for row in rows]).grams(QUESTION_GRAM, whole=True))
        self._answer_twins = Twins(words.grams(ANSWER_GRAM, whole=True))
        self._telling_twins = Twins(telling_shingles(words, answers, self._focuses), shortest=SHORTEST)

    def leakage(self, train: Sequence[int], heldout: Sequence[int]) -> Leakage:
        """Measure a split that is given by indices; `heldout` is not empty."""
        known = frozenset(train)

        def exact(texts: Sequence[str]) -> float:
            seen = {texts[at] for at in train}
            return sum(texts[at] in seen for at in heldout) / len(heldout)

        def near(twins: Twins, texts: Sequence[str] | None) -> float:
            seen = {texts[at] for at in train} if texts is not None else set()
            same = ((texts is not None and texts[at] in seen) or twins.has(at, known) for at in heldout)
            return sum(same) / len(heldout)

        focuses = {self._focuses[at] for at in heldout}
        return Leakage(
            heldout=len(heldout),
            train=len(train),
            focuses=len(focuses & {self._focuses[at] for at in train}) / len(focuses),
            questions_exact=exact(self._questions),
            questions_near=near(self._question_twins, self._questions),
            answers_exact=exact(self._answers),
            answers_near=near(self._answer_twins, self._answers),
            answers_telling=near(self._telling_twins, None),
            answers_known=float((shares(self._grams, heldout, train) > LIMIT).mean()),
        )
