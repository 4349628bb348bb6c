"""The system-call filter that takes the network away: which calls, on which architecture, and the kernel's program.

Knows Linux's numbers and BPF's. Knows no descriptors that are open already and nothing of the program it guards.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K; source: linux/bpf_common.h."""
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT, _FIFTH_ARGUMENT = 0, 4, 24, 48
"""Where they lie in `struct seccomp_data` of linux/seccomp.h; arguments have 8 bytes, the low half first."""
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000 | errno.EPERM
X32 = 0x40000000
"""Set in the number of every call of x86-64's 32-bit-pointer interface, which has numbers of its own."""
_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1
_TUNSETIFF = 0x400454CA
"""The ioctl that makes a network interface out of /dev/net/tun; source: linux/if_tun.h."""

NETWORK = (
    *("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"),
    *("sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg"),
)
SERVING = frozenset({"accept", "accept4", "recvfrom", "sendto"})
"""What a server needs of them once it listens; `sendto` then passes without an address only, or it could connect."""
RINGS = ("io_uring_setup", "io_uring_enter", "io_uring_register")
"""io_uring does all of the above by messages that no filter sees."""
FOREIGN = ("pidfd_getfd", "ptrace", "process_vm_readv", "process_vm_writev")
"""Borrowing the sockets, or the hands, of another process."""
KERNEL = ("mount", "fsopen", "fsmount", "move_mount", "bpf", "init_module", "finit_module", "kexec_load")
"""With which root could let the kernel open connections of its own (network file systems, modules)."""
DENIED = (*NETWORK, *RINGS, *FOREIGN, *KERNEL, "kexec_file_load")


@dataclass(frozen=True)
class Architecture:
    """One machine's system calls.

    Attributes:
        audit: AUDIT_ARCH of linux/audit.h; calls made as any other (32-bit code) all fail.
        seccomp, ioctl: numbers of these calls.
        numbers: of the calls in `DENIED`.
        has_x32: whether numbers with bit 30 are another interface to the same kernel.
    """

    audit: int
    seccomp: int
    ioctl: int
    numbers: Mapping[str, int]
    has_x32: bool


_COMMON = {
    **{"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "pidfd_getfd": 438},
    **{"fsopen": 430, "fsmount": 432, "move_mount": 429},
}
"""Calls since Linux 5.0 have the same number everywhere."""
ARCHITECTURES = {
    "x86_64": Architecture(
        audit=0xC000003E,
        seccomp=317,
        ioctl=16,
        numbers={
            **{"socket": 41, "socketpair": 53, "connect": 42, "bind": 49, "listen": 50, "accept": 43, "accept4": 288},
            **{"sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "sendmmsg": 307, "recvmmsg": 299},
            **{"ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165, "bpf": 321},
            **{"init_module": 175, "finit_module": 313, "kexec_load": 246, "kexec_file_load": 320},
            **_COMMON,
        },
        has_x32=True,
    ),
    "aarch64": Architecture(
        audit=0xC00000B7,
        seccomp=277,
        ioctl=29,
        numbers={
            **{"socket": 198, "socketpair": 199, "connect": 203, "bind": 200, "listen": 201, "accept": 202},
            **{"accept4": 242, "sendto": 206, "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "sendmmsg": 269},
            **{"recvmmsg": 243, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "mount": 40},
            **{"bpf": 280, "init_module": 105, "finit_module": 273, "kexec_load": 104, "kexec_file_load": 294},
            **_COMMON,
        },
        has_x32=False,
    ),
}
"""Machine as `uname -m` has it → its calls; source: asm/unistd_64.h, asm-generic/unistd.h."""


class Unavailable(Exception):
    """This system cannot be given the filter; the message says why, in a few words."""


def architecture() -> Architecture:
    """This machine's system calls.

    Raises:
        Unavailable: no Linux, or a machine whose numbers are not known here, or a 32-bit Python.
    """
    if sys.platform != "linux":
        raise Unavailable(f"{sys.platform} has no seccomp")
    name, pointer = os.uname().machine, struct.calcsize("P") * 8
    found = ARCHITECTURES.get(name)
    if found is None or pointer != 64:
        raise Unavailable(f"no filter is known for {name} with {pointer}-bit pointers")
    return found


def program(machine: Architecture, *, serving: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter`: what is denied fails with EPERM, everything else passes.

    Args:
        machine: whose numbers.
        serving: let `SERVING` pass.
    """
    denied = [machine.numbers[name] for name in DENIED if not (serving and name in SERVING)]
    steps: list[tuple[int, int | None, int | None, int]] = [  # None jumps to the refusal, the last instruction
        (_LOAD_WORD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 0, None, machine.audit),
        (_LOAD_WORD, 0, 0, _NUMBER),
    ]
    if machine.has_x32:
        steps.append((_JUMP_AT_LEAST, None, 0, X32))
    steps += [(_JUMP_EQUAL, None, 0, number) for number in denied]
    if serving:
        steps.append((_JUMP_EQUAL, 0, 5, machine.numbers["sendto"]))
        for half in (0, 4):
            steps += [(_LOAD_WORD, 0, 0, _FIFTH_ARGUMENT + half), (_JUMP_EQUAL, 0, None, 0)]
        steps.append((_RETURN, 0, 0, _ALLOW))
    steps += [
        (_JUMP_EQUAL, 0, 2, machine.ioctl),
        (_LOAD_WORD, 0, 0, _SECOND_ARGUMENT),
        (_JUMP_EQUAL, None, 0, _TUNSETIFF),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL),
    ]
    last = len(steps) - 1

    def jump(target: int | None, at: int) -> int:
        return last - at - 1 if target is None else target

    return b"".join(
        struct.pack("<HBBI", code, jump(yes, at), jump(no, at), value)
        for at, (code, yes, no, value) in enumerate(steps)
    )


class _Program(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(*, serving: bool = False) -> None:
    """Put the filter on every thread of this process, and so on its children; it cannot be taken off again.

    Raises:
        Unavailable: the kernel refuses, or is too old.
    """
    machine = architecture()
    code = program(machine, serving=serving)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        raise Unavailable(f"prctl(NO_NEW_PRIVS): {os.strerror(ctypes.get_errno())}")
    filled = _Program(len(code) // 8, code)
    result = syscall(machine.seccomp, _SET_FILTER, _ALL_THREADS, ctypes.byref(filled))
    if result > 0:
        raise Unavailable(f"seccomp: thread {result} has another filter")
    if result < 0:
        raise Unavailable(f"seccomp: {os.strerror(ctypes.get_errno())}")


def syscall(number: int, *arguments: object) -> int:
    """A raw system call; -1 and `ctypes.get_errno()` if it fails. Whole numbers are passed as 64 bits."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return int(call(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
