"""Which rows hang together, so that no split may part them: same focus, or near-duplicate answers. Knows no sides.

Linking every pair of answers at Jaccard 0.8 makes one component of 3,423 rows out of MedQuAD: GHR's paragraphs on
inheritance and GARD's tables of symptoms stand under hundreds of focuses. So shingles that stand under ten focuses and
in ten different answers or more are boilerplate, and what is left of an answer must be 25 shingles long to count.
Measured on MedQuAD's 15,384 rows: 209 pairs of near-duplicates, 187 of them across focuses (Noonan syndrome 2, 3, 4 and
6; kidney stones told twice; acquired hemophilia and acquired hemophilia A), so 4,351 components of 4,443 focuses, the
largest of 132 rows: the cancers that CancerGov and NIHSeniorHealth both write about. With 5 or 20 in place of ten the
largest has 106 and 132 rows. An answer that is copied word for word under many questions counts once: it is a copy, not
boilerplate. What boilerplate makes alike without a link is left to the 13-grams (`separate`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medmind_train.data.clean import comparable
from medmind_train.data.near import Forest, join_near
from medmind_train.data.ngrams import Grams, Words
from medmind_train.data.rows import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 5
"""Words in a shingle."""
BOILERPLATE = 10
"""A shingle under so many focuses, in so many different answers, is boilerplate."""
SHORTEST = 25
"""Shingles that must be left of an answer for its likeness to mean anything."""


def focus_key(row: Row) -> str:
    """The focus without case, punctuation and spacing; the question stands in where there is none."""
    return comparable(row.focus) or comparable(row.question) or row.question


def answer_text(row: Row) -> str:
    """All that the assistant says in a row."""
    return "\n".join(message["content"] for message in row.messages if message["role"] == "assistant")


@dataclass(frozen=True)
class Components:
    """Rows in groups that must not be parted.

    Attributes:
        keys: one for each row; equal for rows of one component: the alphabetically first focus in it. A key changes
            only when a row joins that brings an earlier focus along.
        links: pairs of rows whose answers are near-duplicates, as many as connect the components.
        across: how many of them are between different focuses.
    """

    keys: tuple[str, ...]
    links: tuple[tuple[int, int], ...]
    across: int

    def sizes(self) -> list[int]:
        """Rows of each component, largest first."""
        return sorted(Counter(self.keys).values(), reverse=True)


def components(rows: Sequence[Row], words: Words | None = None, *, boilerplate: int | None = BOILERPLATE) -> Components:
    """Group rows by focus and by near-duplicate answers.

    Args:
        rows: cleaned ones.
        words: of their `answer_text`, where these are at hand.
        boilerplate: see `BOILERPLATE`; None ignores nothing.
    """
    answers = [answer_text(row) for row in rows]
    focuses = [focus_key(row) for row in rows]
    grams = telling_shingles(words or Words(answers), answers, focuses, boilerplate=boilerplate)
    forest = Forest(len(rows))
    links = join_near(grams, forest, shortest=SHORTEST)
    across = sum(focuses[one] != focuses[other] for one, other in links)
    first: dict[str, int] = {}
    for at, focus in enumerate(focuses):
        forest.join(at, first.setdefault(focus, at))
    keys: dict[int, str] = {}
    for at, focus in enumerate(focuses):
        root = forest.find(at)
        keys[root] = min(keys.get(root, focus), focus)
    return Components(tuple(keys[forest.find(at)] for at in range(len(rows))), tuple(links), across)


def telling_shingles(
    words: Words, answers: Sequence[str], focuses: Sequence[str], *, boilerplate: int | None = BOILERPLATE
) -> Grams:
    """The shingles of each answer (`words` are its words), without boilerplate."""
    grams = words.grams(SHINGLE)
    if boilerplate is None or not len(grams.hashes):
        return grams
    import numpy as np

    _, which = np.unique(grams.hashes, return_inverse=True)
    spread = np.minimum(
        _spread(which, _numbers(focuses)[grams.texts]),
        _spread(which, _numbers([comparable(answer) for answer in answers])[grams.texts]),
    )
    return grams.where(spread[which] < boilerplate)


def _numbers(names: Sequence[str]) -> "NDArray[np.int64]":
    """The names by number, equal for equal names."""
    import numpy as np

    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _spread(which: "NDArray[np.int64]", groups: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """In how many different groups each gram occurs; shape (distinct grams,)."""
    import numpy as np

    base = int(groups.max()) + 1
    pairs = np.sort(which * base + groups)
    first = np.ones(len(pairs), dtype=bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return np.bincount(pairs[first] // base)
