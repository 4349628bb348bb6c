"""Amounts of memory as people write them. Knows units; nothing of what has the size."""

import re

from medmind.errors import MedmindError

_UNITS = {"": 30, "k": 10, "m": 20, "g": 30, "t": 40}


def parse(flag: str, text: str) -> int:
    """Bytes of `6GiB`, `6GB`, `6g`, `6` or `6144MiB`; a GB of memory is meant as a GiB, as makers of cards mean it.

    Raises:
        MedmindError: no size, or none above 0; names `flag`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    size = int(float(match[1]) * 2 ** _UNITS[match[2]]) if match else 0
    if size <= 0:
        raise MedmindError(f"{flag} cannot be '{text}'", "write a size such as 6GiB or 900MiB")
    return size
