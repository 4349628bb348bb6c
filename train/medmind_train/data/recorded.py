"""Rows that an earlier run held out: found, and kept held out however the data grows. Knows no format but its own."""

from collections.abc import Sequence
from pathlib import Path

from medmind.artifacts import HELDOUT, read_jsonl
from medmind.errors import MedmindError
from medmind_train.data.rows import Row
from medmind_train.data.split import Side


def read_recorded(where: Path) -> list[Row]:
    """The held-out rows of a run directory, or of a heldout.jsonl itself.

    Raises:
        MedmindError: nothing is there, it is no such file, or it holds no row.
    """
    path = where / HELDOUT if where.is_dir() else where
    if not path.is_file():
        raise MedmindError(
            f"{where} holds no {HELDOUT}" if where.is_dir() else f"{where} does not exist",
            f"give a run directory or its {HELDOUT}",
        )
    rows = [Row.from_dict(record, f"{path}:{number}") for number, record in enumerate(read_jsonl(path), 1)]
    if not rows:
        raise MedmindError(f"{path} holds no row", f"give the {HELDOUT} of a run that held rows out")
    return rows


def pin(sides: list[Side | None], keys: Sequence[str], recorded: Sequence[bool]) -> int:
    """Hold recorded rows out, and leave out (None) what hangs together with them and was on another side.

    Args:
        sides: of each row by its key; changed in place.
        keys: of each row's component.
        recorded: whether a row was held out before.

    Returns:
        How many rows were left out.
    """
    pinned = {key for key, known in zip(keys, recorded, strict=True) if known}
    left_out = 0
    for at, key in enumerate(keys):
        if recorded[at]:
            sides[at] = "heldout"
        elif key in pinned and sides[at] in ("train", "validation"):
            sides[at] = None
            left_out += 1
    return left_out
