"""Files that only their owner may read: what was said is kept in no other kind. Knows nothing of what is in them."""

import os
import secrets
from pathlib import Path

from medmind.errors import MedmindError

_OWNER_ALONE = 0o600


def ensure(path: Path) -> Path:
    """Make an empty file if there is none; take from others what rights they have on an old one.

    Raises:
        MedmindError: it is no regular file, or somebody else's.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), _OWNER_ALONE))
    except OSError as error:
        raise MedmindError(f"{path} cannot be written: {error.strerror}", "give the name of another file") from error
    _own(path)
    return path


def _own(path: Path) -> None:
    if not path.is_file():
        raise MedmindError(f"{path} is no regular file", "give the name of another file")
    if os.name == "nt":  # the rights of a profile's folder hold there
        return
    if path.stat().st_uid != os.getuid():
        raise MedmindError(f"{path} belongs to somebody else", "give the name of another file")
    path.chmod(_OWNER_ALONE)


def write(path: Path, content: bytes) -> None:
    """Replace the file's content, in one step; no moment at which others could read it.

    Raises:
        MedmindError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ALONE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise MedmindError(f"{path} cannot be written: {error.strerror}", "give the name of another file") from error
    finally:
        partial.unlink(missing_ok=True)


def token(path: Path) -> str:
    """The token in a file; a new one when the file is missing or empty.

    Raises:
        MedmindError: it cannot be read or written, or holds no token; nothing is changed then.
    """
    kept = _read(path).strip()
    if kept and not (kept.isascii() and 16 <= len(kept) <= 512 and not set(kept) & set(b" \r\n")):
        raise MedmindError(f"{path} holds no token", "one line of 16 to 512 letters, or remove it for a new one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise MedmindError(f"{path.parent} cannot be made: {error.strerror}", "give another file") from error
    ensure(path)
    if not kept:
        kept = secrets.token_urlsafe(32).encode()
        write(path, kept + b"\n")
    return kept.decode("ascii")


def _read(path: Path) -> bytes:
    """What is in a file; nothing where there is none."""
    if path.exists() and not path.is_file():
        raise MedmindError(f"{path} is no regular file", "give the name of another file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise MedmindError(f"{path} cannot be read: {error.strerror}", "give the name of another file") from error
