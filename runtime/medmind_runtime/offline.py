"""Takes the network away from this process, for good, and says so when it cannot.

Knows what is open already and when to refuse; the filter itself is `seccomp`, trying it out is `probes`.

What it holds: no thread of this process and no child can open, use or borrow a socket, or have io_uring do so. What it
cannot hold: files. Where the model lies on a network file system, or another program sends on what is written to a file
or a pipe, that is not this process's network.
"""

import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from medmind.errors import MedmindError
from medmind_runtime import seccomp

_DESCRIPTORS = Path("/proc/self/fd")
_STREAMS = {0: "standard input", 1: "standard output", 2: "standard error"}


@dataclass(frozen=True)
class Offline:
    """How it went.

    Attributes:
        proved: whether the kernel holds the filter and nothing open leads past it.
        notes: lines for the user: what was closed, and why it is not proved.
    """

    proved: bool
    notes: tuple[str, ...] = ()


def take_network_away(*, allow_unproved: bool = False, listener: socket.socket | None = None) -> Offline:
    """Deny this process and its children every socket, from now on.

    Call it before a model is loaded. Sockets that were inherited are closed.

    Args:
        allow_unproved: go on where it cannot be had, or where a standard stream is a socket; `notes` says so.
        listener: a socket that listens on a loopback address: it stays, its connections can be accepted, read
            (`recv`) and answered (`send`); making, connecting and binding sockets is denied all the same.

    Raises:
        MedmindError: it cannot be had and `allow_unproved` is not given; the listener does not listen on loopback.
    """
    kept = frozenset() if listener is None else frozenset({_checked(listener)})
    notes: list[str] = []
    doubts: list[str] = []
    try:
        doubts += _close_inherited(kept, notes)
        seccomp.install(serving=listener is not None)
    except (seccomp.Unavailable, OSError) as error:
        doubts.append(str(error))
    if doubts and not allow_unproved:
        raise MedmindError(
            f"the network cannot be taken away from medmind here: {'; '.join(doubts)}",
            "--allow-unproved goes on without that proof; medmind itself still makes no connection",
        )
    notes += [f"not proved offline: {doubt}" for doubt in doubts]
    return Offline(not doubts, tuple(notes))


def _checked(listener: socket.socket) -> int:
    """The descriptor of a socket that waits for connections from this machine, and only from it."""
    import ipaddress

    internet = listener.family in (socket.AF_INET, socket.AF_INET6)
    if not internet or not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        raise MedmindError("medmind listens on loopback addresses only", "use 127.0.0.1 or ::1")
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise MedmindError("the socket to serve on does not listen yet")
    return listener.fileno()


def _close_inherited(kept: frozenset[int], notes: list[str]) -> list[str]:
    """Close what could reach a network past the filter; returns why it is not enough, which nothing should be."""
    if not _DESCRIPTORS.is_dir():
        raise seccomp.Unavailable("/proc is not there to tell what is open")
    doubts = []
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - iterdir() would hold it open as one more
        descriptor = int(name)
        what = _reaches_out(descriptor)
        if not what or descriptor in kept:
            continue
        if descriptor in _STREAMS:
            doubts.append(f"{_STREAMS[descriptor]} is {what}; give a pipe or a file")
        else:
            os.close(descriptor)
            notes.append(f"closed the inherited descriptor {descriptor}: {what}")
    return doubts


def _reaches_out(descriptor: int) -> str:
    """What an open descriptor is, if it could reach a network; empty otherwise."""
    try:
        mode = os.fstat(descriptor).st_mode
        target = str((_DESCRIPTORS / str(descriptor)).readlink())
    except OSError:  # the listing's own descriptor, closed by now
        return ""
    if stat.S_ISSOCK(mode):
        return "a socket"
    if "io_uring" in target:
        return "an io_uring"
    return "a network interface" if target == "/dev/net/tun" else ""
