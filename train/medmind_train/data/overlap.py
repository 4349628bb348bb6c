"""How much of an answer stands word for word in other answers, by 13-grams. Knows texts; drops nothing itself.

13 words is the length by which GPT-3 looked for test text in its training text (Brown et al. 2020, appendix C). An
answer of fewer words is one gram, which only an answer of the very same words holds.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medmind_train.data.ngrams import Grams, Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LENGTH = 13
"""Words in a gram."""
LIMIT = 0.2
"""The share of an answer's grams above which it counts as known from training."""


def grams_of(words: Words) -> Grams:
    """The grams that the functions below compare."""
    return words.grams(LENGTH, whole=True)


def shares(grams: Grams, asked: Sequence[int], training: Sequence[int]) -> "NDArray[np.float64]":
    """Share of the distinct grams of each text in `asked` that stand in any text of `training`; shape (asked,)."""
    import numpy as np

    hashes, texts = _only(grams, asked)
    hits = _occurs(hashes, np.sort(_only(grams, training)[0]))
    counts = np.bincount(texts, weights=hits, minlength=len(grams.sizes))[list(asked)]
    result: NDArray[np.float64] = counts / np.maximum(grams.sizes[list(asked)], 1)
    return result


def holders(grams: Grams, asked: Sequence[int], training: Sequence[int]) -> set[int]:
    """Those of the texts `training` that alone hold more than `LIMIT` of the grams of one of `asked`."""
    import numpy as np

    hashes, texts = _only(grams, training)
    order = np.argsort(hashes, kind="stable")
    hashes, texts = hashes[order], texts[order]
    sets = grams.sets()
    found: set[int] = set()
    for text in asked:
        starts, ends = (np.searchsorted(hashes, sets[text], side) for side in ("left", "right"))
        places = [np.arange(start, end) for start, end in zip(starts, ends, strict=True) if end > start]
        if places:
            counts = np.bincount(texts[np.concatenate(places)])
            found.update(np.flatnonzero(counts > LIMIT * len(sets[text])).tolist())
    return found


def _only(grams: Grams, texts: Sequence[int]) -> "tuple[NDArray[np.uint64], NDArray[np.int64]]":
    import numpy as np

    wanted = np.zeros(len(grams.sizes), dtype=bool)
    wanted[list(texts)] = True
    chosen = wanted[grams.texts]
    return grams.hashes[chosen], grams.texts[chosen]


def _occurs(asked: "NDArray[np.uint64]", known: "NDArray[np.uint64]") -> "NDArray[np.bool_]":
    """Which of `asked` are among `known`, which is ascending; numpy's own `isin` takes ten times as long here."""
    import numpy as np

    if not len(known):
        return np.zeros(len(asked), dtype=bool)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
    return found
