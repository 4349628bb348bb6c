"""What may be computed again but is kept: where it lies, how it is written, and what goes when there is too much.

Knows files and names that carry the digest of everything they were made from; not what is in them. No entry is ever
trusted for being there: each is checked as it is read, and nothing fails because the cache does.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from medmind.artifacts import atomic_file
from medmind.errors import MedmindError

T = TypeVar("T")
VARIABLE = "MEDMIND_CACHE"
_KEPT = 32
"""Files of one kind that stay, the least recently used ones going first."""


def directory() -> Path:
    """`$MEDMIND_CACHE`, else `medmind` in the user's cache directory as the platform has it."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "medmind" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medmind"


def key(*parts: Any) -> str:
    """40 hex digits that stand for `parts`, which are whatever JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:40]


def code(modules: Iterable[Path]) -> str:
    """A digest over source files: an entry made by other code is another entry."""
    hasher = hashlib.sha256()
    for path in sorted(modules):
        hasher.update(path.name.encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()


def kept(kind: str, key: str, read: Callable[[Path], T], make: Callable[[], T], write: Callable[[Path, T], None]) -> T:
    """The entry `kind`/`key`: read where it is there and whole, else made, and written for the next time.

    Args:
        read: reads an entry; raises ValueError or MedmindError for one that is torn or foreign.
        make: makes the value.
        write: writes it to a path.
    """
    path = directory() / kind / key
    try:
        value = read(path)
        os.utime(path)
        return value
    except (OSError, ValueError, MedmindError):
        pass
    value = make()
    try:
        with atomic_file(path) as partial:
            write(partial, value)
        _trim(path.parent)
        return read(path)
    except (OSError, ValueError, MedmindError):  # a full disk, a read-only home, a file that another process has open
        return value


def _trim(folder: Path) -> None:
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)[_KEPT:]:
        path.unlink(missing_ok=True)
