"""Rows parted into sides that share no knowledge: whole components, no answer known by its 13-grams. Reads no file.

Measured on MedQuAD (10 % and 2 % of the components): of 1,391 held-out rows 876 remain, of 281 for validation 177. GARD
(278) and GHR (224) lose most, to their boilerplate. A random split as large has 42 % of such answers, one by focus
alone 40 %. On one busy core of two all of `prepare` takes 9 to 12 s.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from medmind.errors import MedmindError
from medmind_train.data.components import Components, answer_text, components
from medmind_train.data.ngrams import Grams, Words
from medmind_train.data.overlap import LIMIT, grams_of, holders, shares
from medmind_train.data.recorded import pin
from medmind_train.data.rows import Row
from medmind_train.data.split import Side, Split, assign, part, thin

OVER_LIMIT = "beyond --limit"
JOINS = "hangs together with a recorded held-out row"
HOLDS = "holds the text of a recorded held-out answer"
HELDOUT_KNOWN = "held-out answer known from training"
VALIDATION_KNOWN = "validation answer known from training"


@dataclass(frozen=True)
class Separated:
    """Rows by side, and what was left out for it.

    Attributes:
        split: the rows.
        dropped: rows left out, by reason.
        known: held-out and validation rows left out because training knows their answer, by source.
        together: the components, of all rows that were given.
        recorded_known: recorded held-out rows that stay although training knows more than a fifth of their 13-grams
            (no single training row does).
    """

    split: Split
    dropped: dict[str, int]
    known: dict[str, int] = field(repr=False)
    together: Components = field(repr=False)
    recorded_known: int = 0


def separate(
    rows: Sequence[Row],
    *,
    heldout: float,
    validation: float,
    limit: int | None = None,
    recorded: Sequence[bool] | None = None,
) -> Separated:
    """Part rows into training, validation and held-out.

    Args:
        rows: cleaned rows without repeats.
        heldout, validation: shares of the components.
        limit: at most so many rows that are not recorded, picked before anything is dropped.
        recorded: which rows an earlier run held out; they are held out whatever else holds.

    Raises:
        MedmindError: fewer than two components, or a side is left empty.
    """
    words = Words([answer_text(row) for row in rows])
    together = components(rows, words)
    fixed = list(recorded) if recorded is not None else [False] * len(rows)
    places = list(range(len(rows)))
    if limit is not None:
        free = [at for at in places if not fixed[at]]
        places = sorted([*(free[at] for at in thin([rows[at] for at in free], limit)), *_where(fixed)])
    sides: list[Side | None] = [None] * len(rows)
    for at, side in zip(places, assign([together.keys[at] for at in places], heldout, validation), strict=True):
        sides[at] = side
    dropped = {OVER_LIMIT: len(rows) - len(places), JOINS: pin(sides, together.keys, fixed)}
    grams = grams_of(words)
    dropped[HOLDS] = _drop_holders(grams, sides, fixed)
    training = _on(sides, "train")
    if not training:
        raise MedmindError(
            f"no row is left to train on: all {len(places):,} usable ones are held out, or hang together with rows "
            "that an earlier run held out",
            "add other rows, or leave the recorded rows out",
        )
    known = {
        reason: _drop_known(grams, sides, [at for at in _on(sides, side) if not fixed[at]], training)
        for reason, side in ((HELDOUT_KNOWN, "heldout"), (VALIDATION_KNOWN, "validation"))
    }
    dropped |= {reason: len(found) for reason, found in known.items()}
    if "heldout" not in sides:
        raise MedmindError(
            f"no held-out row is left: more than {LIMIT:.0%} of the text of all {len(known[HELDOUT_KNOWN]):,} answers "
            "stands in training answers too",
            "look at the data with: medmind-train data audit, or hold out a larger share",
        )
    sources = Counter(rows[at].source for found in known.values() for at in found)
    recorded_known = int((shares(grams, _where(fixed), training) > LIMIT).sum())
    return Separated(part(rows, sides), dropped, dict(sources.most_common()), together, recorded_known)


def _where(flags: Sequence[bool]) -> list[int]:
    return [at for at, flag in enumerate(flags) if flag]


def _on(sides: Sequence[Side | None], wanted: str) -> list[int]:
    return [at for at, side in enumerate(sides) if side == wanted]


def _drop_holders(grams: Grams, sides: list[Side | None], fixed: Sequence[bool]) -> int:
    """Take from training what alone holds a recorded answer; returns how many rows that were."""
    training = _on(sides, "train")
    recorded = _where(fixed)
    asked = [
        at for at, share in zip(recorded, shares(grams, recorded, training).tolist(), strict=True) if share > LIMIT
    ]
    found = holders(grams, asked, training) if asked else set()
    for at in found:
        sides[at] = None
    return len(found)


def _drop_known(grams: Grams, sides: list[Side | None], asked: Sequence[int], training: Sequence[int]) -> list[int]:
    """Leave out those of the rows `asked` that training knows; returns them."""
    found = [at for at, share in zip(asked, shares(grams, asked, training).tolist(), strict=True) if share > LIMIT]
    for at in found:
        sides[at] = None
    return found
