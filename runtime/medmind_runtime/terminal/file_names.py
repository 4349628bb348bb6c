"""The files that /save and /load are told to use: from what was typed to their paths. Knows not what is in them."""

import os
from pathlib import Path

from medmind.errors import MedmindError
from medmind_runtime import private_file


def named(name: str) -> Path:
    """The file of that name.

    Raises:
        MedmindError: no file can have it.
    """
    try:
        possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half of a pair, as a terminal may paste it
        possible = False
    if not possible:
        raise MedmindError("there is a character in the name that no file's name may have", "give another name")
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise MedmindError(f"{name}: there is no such user", "give the path without ~") from None
    if not path.name:  # as of / and .
        raise MedmindError(f"{name} is a folder", "give the name of a file")
    return path


def is_there(file: Path) -> bool:
    """Whether there is a file of that name, be it a symbolic link that leads nowhere or in a circle.

    Raises:
        MedmindError: what is there is no regular file, or the system does not tell.
    """
    private_file.demand_regular(file)
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a name too long, a folder that is closed: no reason to end the conversation
        raise MedmindError(f"{file}: {error.strerror}", "give another file") from error
    return True


def state_beside(path: Path) -> Path:
    """Where the state of a saved conversation lies."""
    return path.with_name(f"{path.name}.state")
