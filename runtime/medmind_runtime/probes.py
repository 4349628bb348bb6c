"""Tries out what `offline` denies: every family of sockets, io_uring, 32-bit and x32 calls, threads and children.

Each probe makes the call for real, with arguments for which a kernel without the filter gives another error or none.
"""

import ctypes
import errno
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medmind_runtime import seccomp
from medmind_runtime.offline import Offline

_FAMILIES = 46
"""AF_MAX of linux/socket.h, rounded up; a family the kernel does not know would give EAFNOSUPPORT."""
_STREAM = 1
_NOT_32_BIT = 99
_CALLS_32_BIT = {"socketcall": 102, "socket": 359}
"""Numbers of asm/unistd_32.h."""
_FIELDS = ("NoNewPrivs", "Seccomp", "Seccomp_filters")


@dataclass(frozen=True)
class Probe:
    """One attempt.

    Attributes:
        attempt: what was tried.
        outcome: what came of it.
        denied: True when the filter refused it; None when it cannot be tried here.
    """

    attempt: str
    outcome: str
    denied: bool | None


@dataclass(frozen=True)
class Proof:
    """What the kernel says and what the attempts gave.

    Attributes:
        status: lines of /proc/self/status on privileges and seccomp; Seccomp 2 is a filter.
        threads: how many threads; unfiltered: how many of them have no filter.
        probes: the attempts.
    """

    status: tuple[str, ...]
    threads: int
    unfiltered: int
    probes: tuple[Probe, ...]

    @property
    def holds(self) -> bool:
        """Whether every thread has the filter and every attempt that can be made was refused."""
        return bool(self.status) and not self.unfiltered and all(probe.denied is not False for probe in self.probes)

    def as_json(self) -> dict[str, Any]:
        """All fields, and whether it holds."""
        return {"format": "medmind-offline/1", "holds": self.holds, **asdict(self)}


def prove(take_away: Callable[[], Offline]) -> tuple[Offline, Proof]:
    """Take the network away and try; a thread that was there before tries as well.

    Args:
        take_away: `offline.take_network_away` with its arguments.
    """
    begin, found = threading.Event(), []

    def try_later() -> None:
        begin.wait()
        found.append(_denial("socket in a thread that was running before", "socket", 2, _STREAM, 0))

    thread = threading.Thread(target=try_later, daemon=True)
    thread.start()
    try:
        offline = take_away()
        status, threads, unfiltered = _status()
    finally:
        begin.set()
        thread.join()
    return offline, Proof(status, threads, unfiltered, (*probe(), *found))


def probe() -> list[Probe]:
    """Make every attempt now, filter or not; nothing at all where no numbers are known for this system."""
    try:
        machine = seccomp.architecture()
    except seccomp.Unavailable:
        return []
    probes = [_families()]
    bad = -1  # no descriptor, no address, no process
    for name in (*seccomp.NETWORK[1:], *seccomp.RINGS, "pidfd_getfd", "ptrace"):
        probes.append(_denial(name, name, bad, bad, bad, bad, bad))
    probes.append(_in_child("socket in a forked child", lambda: _call("socket", 2, _STREAM, 0)))
    probes.append(_executed())
    if machine.has_x32:
        number = seccomp.X32 | machine.numbers["socket"]
        probes.append(_judged("socket as an x32 call", _errno(seccomp.syscall(number, 2, _STREAM, 0))))
        probes += [
            _in_child(f"{name} as a 32-bit call (int 0x80)", partial(_call_32_bit, number))
            for name, number in _CALLS_32_BIT.items()
        ]
    else:
        probes.append(Probe("32-bit calls", "cannot be tried from a 64-bit program on this machine", None))
    return probes


def _status() -> tuple[tuple[str, ...], int, int]:
    """The kernel's lines on this process, its threads, and those without a filter."""
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        tasks = [(task / "status").read_text("ascii", "replace") for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return (), 0, 0
    own = tuple(line.replace("\t", " ") for line in lines if line.partition(":")[0] in _FIELDS)
    return own, len(tasks), sum("Seccomp:\t2" not in text for text in tasks)


def _families() -> Probe:
    refused = sum(_call("socket", family, kind, 0) == errno.EPERM for family in range(_FAMILIES) for kind in (1, 2, 3))
    tried = 3 * _FAMILIES
    return Probe(f"socket: {_FAMILIES} families, AF_UNIX too", f"{refused} of {tried} refused", refused == tried)


def _denial(attempt: str, name: str, *arguments: int) -> Probe:
    return _judged(attempt, _call(name, *arguments))


def _judged(attempt: str, error: int) -> Probe:
    outcome = f"{errno.errorcode.get(error, error)}: {os.strerror(error)}" if error else "it went through"
    return Probe(attempt, outcome, error == errno.EPERM)


def _call(name: str, *arguments: int) -> int:
    """The error of a call; 0 when it went through (what it opened is closed)."""
    result = seccomp.syscall(seccomp.architecture().numbers[name], *arguments)
    if result > 2 and name == "socket":
        os.close(result)
    return _errno(result)


def _errno(result: int) -> int:
    return ctypes.get_errno() if result < 0 else 0


def _in_child(attempt: str, call: Callable[[], int]) -> Probe:
    """Make a call in a forked child: its exit status is the error."""
    child = os.fork()
    if child == 0:
        status = _NOT_32_BIT
        try:
            status = call()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(ended)
    if status < 0:  # a kernel without 32-bit code kills whoever tries
        return Probe(attempt, "this kernel runs no such code", None)
    if status == _NOT_32_BIT:
        return Probe(attempt, "memory cannot be made executable here", None)
    return _judged(attempt, status)


def _executed() -> Probe:
    """The same in another program that this one starts."""
    attempt = "socket in a program started from here"
    code = "import socket,sys\ntry: socket.socket()\nexcept OSError as e: sys.exit(e.errno)"
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True)
    return _judged(attempt, ended.returncode)


def _call_32_bit(number: int) -> int:
    """A call through the gate for 32-bit programs, in machine code: `socketcall(SYS_SOCKET, 0)`, `socket(1, 0, 0)`."""
    code = (
        b"\x53"  # push rbx, which belongs to the caller
        + b"\xb8"
        + number.to_bytes(4, "little")  # mov eax, number
        + b"\xbb\x01\x00\x00\x00"  # mov ebx, 1
        + b"\x31\xc9\x31\xd2"  # xor ecx, ecx; xor edx, edx
        + b"\xcd\x80"  # int 0x80
        + b"\x5b\xc3"  # pop rbx; ret
    )
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return _NOT_32_BIT
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return -result if result < 0 else 0
