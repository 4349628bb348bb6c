"""Sizes as people write them (`4GiB`, `500M`), in bytes. Knows units only."""

import re

from medmind.errors import MedmindError

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def parse_bytes(text: str) -> int:
    """Bytes of a size; K, M, G count in thousands, KiB, MiB, GiB in 1024s.

    Raises:
        MedmindError: it is no size above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    found = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if found < 1:
        raise MedmindError(f"'{text}' is no size", "write it as 2GiB or 500M")
    return found
