"""Reading what somebody names as a file of some kind, which may be a device that never ends.

Knows how much may be read; not what is in it.
"""

from pathlib import Path

from medmind.errors import MedmindError


def read(path: Path, most: int, *, kind: str, mend: str) -> bytes:
    """The bytes of a file of at most `most`.

    Args:
        path: as given.
        most: bytes.
        kind: what it should be, to be told: `conversation`.
        mend: what to do about one that is none.

    Raises:
        MedmindError: it is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise MedmindError(f"{path} is larger than any {kind}", mend)
    return content
