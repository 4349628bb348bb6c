"""On which side a row is: decided by a hash of its component's key alone. Knows no file and no randomness.

A component (see `components`) is on one side as a whole, so no answer about glaucoma is learnt and another one, or the
same one under another name, then "unseen" in the test. A side does not hang on the order of the rows.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from medmind.errors import MedmindError
from medmind_train.data.components import components
from medmind_train.data.rows import Row

Side = Literal["train", "validation", "heldout"]
_SPLIT = b"medmind-split/1\0"
_LIMIT = b"medmind-limit/1\0"


class Split(NamedTuple):
    """Rows by side, each in their order."""

    train: list[Row]
    validation: list[Row]
    heldout: list[Row]


def position(key: str) -> float:
    """Where a key lies in [0, 1): the first 64 bits of a SHA-256; it is held out below the held-out share."""
    return int.from_bytes(hashlib.sha256(_SPLIT + key.encode()).digest()[:8], "big") / 2**64


def check_shares(heldout: float, validation: float = 0.0) -> None:
    """Raise unless the held-out share lies between 0 and 1, both excluded, and leaves room beside validation's."""
    if not 0 < heldout < 1:
        raise MedmindError(f"the held-out share is {heldout:g}", "give a number between 0 and 1, such as 0.1")
    if not 0 <= validation < 1:
        raise MedmindError(f"the validation share is {validation:g}", "give 0, or a number below 1, such as 0.02")


def assign(keys: Sequence[str], heldout: float, validation: float = 0.0) -> list[Side]:
    """The side of each row, by its component's key.

    Args:
        keys: of two components or more.
        heldout: share of the components to hold out, between 0 and 1; they lie at the positions below it.
        validation: share of the components for validation; they lie next to the held-out ones.

    With so few components that training or held-out gets none, the one nearest to the border changes over: the only
    case in which other rows have a say. Validation may be left empty.

    Raises:
        MedmindError: a share is out of range, or there are fewer than two components.
    """
    check_shares(heldout, validation)
    positions = {key: position(key) for key in keys}
    if len(positions) < 2:
        raise MedmindError(
            f"all {len(keys):,} usable rows are about one focus or repeat one another, so none can be held out",
            "give data on two focuses or more",
        )
    sides: dict[str, Side] = {
        key: "heldout" if at < heldout else "validation" if at < heldout + validation else "train"
        for key, at in positions.items()
    }
    ranked = sorted(positions, key=lambda key: (positions[key], key))
    if "heldout" not in sides.values():
        sides[ranked[0]] = "heldout"
    if "train" not in sides.values():
        sides[ranked[-1]] = "train"
    return [sides[key] for key in keys]


def part(rows: Sequence[Row], sides: Sequence[Side | None]) -> Split:
    """The rows of each side; a row without one is left out."""
    found = Split([], [], [])
    for row, side in zip(rows, sides, strict=True):
        if side is not None:
            getattr(found, side).append(row)
    return found


def split(rows: Sequence[Row], heldout: float, validation: float = 0.0) -> Split:
    """Part rows by components; see `assign` for the shares and what is raised."""
    return part(rows, assign(components(rows).keys, heldout, validation))


def split_by_keys(keys: Sequence[str], heldout: int) -> tuple[list[int], list[int]]:
    """Indices of (training, held-out) rows when whole keys are held out by position until `heldout` rows are."""
    rows_of: dict[str, list[int]] = {}
    for at, key in enumerate(keys):
        rows_of.setdefault(key, []).append(at)
    taken: list[int] = []
    for key in sorted(rows_of, key=lambda key: (position(key), key)):
        if len(taken) >= heldout:
            break
        taken += rows_of[key]
    out = set(taken)
    return [at for at in range(len(keys)) if at not in out], sorted(taken)


def thin(rows: Sequence[Row], limit: int) -> list[int]:
    """Indices of at most `limit` rows in their order, picked by a hash of their text: spread over the whole, nested."""
    if len(rows) <= limit:
        return list(range(len(rows)))

    def rank(index: int) -> bytes:
        text = "\0".join(message["content"] for message in rows[index].messages)
        return hashlib.sha256(_LIMIT + text.encode()).digest()

    return sorted(sorted(range(len(rows)), key=rank)[:limit])
