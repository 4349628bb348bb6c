"""Files that only their owner may read: what was said is kept in no other kind. Knows nothing of what is in them."""

import errno
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

from medmind.errors import MedmindError

_OWNER_ALONE = 0o600
_OTHER = "give the name of another file"
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
"""What file systems and kernels without O_TMPFILE say to it (open(2))."""


def demand_regular(path: Path) -> None:
    """Refuse a device, a FIFO (which would be waited for) or a folder; what is not there may still be made.

    Raises:
        MedmindError: it is no regular file.
    """
    try:
        found = path.stat().st_mode
    except OSError:  # whoever opens it says why
        return
    if not stat.S_ISREG(found):
        raise MedmindError(f"{path} is no regular file", _OTHER)


def ensure(path: Path) -> Path:
    """Make an empty file if there is none; take from others what rights they have on an old one.

    Raises:
        MedmindError: it is no regular file, or somebody else's.
    """
    try:
        os.close(_opened(path))
    except OSError as error:
        raise MedmindError(f"{path} cannot be written: {error.strerror}", _OTHER) from error
    _own(path)
    return path


def _opened(path: Path, flags: int = 0) -> int:
    """A descriptor to write by; made where there is none. No FIFO is waited for, and no symbolic link followed."""
    safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, os.O_WRONLY | os.O_CREAT | safe | flags, _OWNER_ALONE)


def _own(path: Path) -> None:
    demand_regular(path)
    if os.name == "nt":  # the rights of a profile's folder hold there
        return
    if path.stat().st_uid != os.getuid():
        raise MedmindError(f"{path} belongs to somebody else", _OTHER)
    path.chmod(_OWNER_ALONE)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, all or nothing; made where there is none.

    Of several processes that do so one waits for the other. A part stays where one that does not wait has added to the
    file behind it by then: what that one added is not taken away.

    Raises:
        MedmindError: it cannot be written.
    """
    try:
        descriptor = _opened(path, os.O_APPEND | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            _alone(descriptor)
            written = file.write(content)
            if written != len(content):  # a disk that is nearly full
                end = file.tell()
                if os.fstat(descriptor).st_size == end:
                    file.truncate(end - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise MedmindError(f"{path} cannot be written: {error.strerror}", _OTHER) from error


def _alone(descriptor: int) -> None:
    """Wait until nobody else holds the file, and hold it until it is closed; where the system cannot, go on."""
    if sys.platform == "win32":
        return
    import fcntl

    with suppress(OSError):  # some file systems of a network
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def write(path: Path, content: bytes) -> None:
    """Replace the file's content, in one step; no moment at which others could read it.

    Where the file system can, it has no name until it is whole: of a process that is killed no part stays behind.

    Raises:
        MedmindError: it cannot be written, or is no regular file.
    """
    demand_regular(path)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # short: the longest name has no room for more
    try:
        descriptor = _unnamed(path.parent)
        if descriptor is None or not _filled(descriptor, content, partial):
            _filled(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ALONE), content)
        partial.replace(path)
    except OSError as error:
        raise MedmindError(f"{path} cannot be written: {error.strerror}", _OTHER) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _filled(descriptor: int, content: bytes, name: Path | None = None) -> bool:
    """Fill a file, wait until it is on the disk, and close it; a `name` is given to it where the system does that."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        if name is not None:
            try:  # with a descriptor given, os.link follows links, and else not
                os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor)
            except OSError:  # a file system or a container that has such files and refuses links
                return False
    return True


def _unnamed(folder: Path) -> int | None:
    """A file without a name, for `os.link` to give it one; None where there are no such files."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, flag | os.O_WRONLY, _OWNER_ALONE)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return None
        raise


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
    demand_regular(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise MedmindError(f"{path} cannot be read: {error.strerror}", _OTHER) from error
