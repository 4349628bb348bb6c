"""Which rows are held out: decided by a hash of the row's focus alone. Knows no file and no randomness.

A focus is on one side as a whole, so no answer about glaucoma is learnt and another one then "unseen" in the test; and
a row's side depends on nothing but its focus, so it stays the same when rows are added, dropped or reordered.
"""

import hashlib
from collections.abc import Sequence

from medmind.errors import MedmindError
from medmind_train.data.clean import comparable
from medmind_train.data.rows import Row

_SPLIT = b"medmind-split/1\0"
_LIMIT = b"medmind-limit/1\0"


def focus_key(row: Row) -> str:
    """The focus without case, punctuation and spacing; the question stands in where there is none."""
    return comparable(row.focus) or comparable(row.question) or row.question


def position(key: str) -> float:
    """Where a focus lies in [0, 1): the first 64 bits of a SHA-256; it is held out below the held-out share."""
    return int.from_bytes(hashlib.sha256(_SPLIT + key.encode()).digest()[:8], "big") / 2**64


def check_share(share: float) -> None:
    """Raise unless a held-out share lies between 0 and 1, both excluded."""
    if not 0 < share < 1:
        raise MedmindError(f"the held-out share is {share:g}", "give a number between 0 and 1, such as 0.1")


def split(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Part rows into (train, held out), in their order.

    Args:
        rows: any number of rows of two focuses or more.
        share: of the focuses to hold out, between 0 and 1.

    With so few focuses that all fall on one side, the one nearest to the border changes over: the only case in which
    other rows have a say.

    Raises:
        MedmindError: the share is out of range, or there are fewer than two focuses.
    """
    check_share(share)
    keys = [focus_key(row) for row in rows]
    positions = {key: position(key) for key in keys}
    if len(positions) < 2:
        raise MedmindError(
            f"all {len(rows):,} usable rows are about one focus, so none can be held out",
            "give data on two focuses or more",
        )
    heldout = {key for key, at in positions.items() if at < share}
    if not heldout:
        heldout = {min(positions, key=positions.__getitem__)}
    elif len(heldout) == len(positions):
        heldout.discard(max(positions, key=positions.__getitem__))
    train_rows = [row for row, key in zip(rows, keys, strict=True) if key not in heldout]
    heldout_rows = [row for row, key in zip(rows, keys, strict=True) if key in heldout]
    return train_rows, heldout_rows


def thin(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` rows in their order, picked by a hash of their text: spread over the whole, and nested."""
    if len(rows) <= limit:
        return list(rows)

    def rank(index: int) -> bytes:
        text = "\0".join(message["content"] for message in rows[index].messages)
        return hashlib.sha256(_LIMIT + text.encode()).digest()

    return [rows[index] for index in sorted(sorted(range(len(rows)), key=rank)[:limit])]
