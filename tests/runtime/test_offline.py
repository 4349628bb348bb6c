"""The network is gone, by every call that could bring it back. Filters stay: each test has a process of its own."""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmind_runtime import seccomp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
TAKE = "from medmind_runtime import offline, probes, seccomp; import os, socket, sys, json, time\n"


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TAKE + code], capture_output=True, text=True, check=False, timeout=60, **options
    )


def decide(code: bytes, number: int, *, audit: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would make of a call: the filter, interpreted."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator, at = 0, 0
    steps = list(struct.iter_unpack("<HBBI", code))
    while True:
        kind, yes, no, value = steps[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif kind == 0x06:
            return int(value)
        else:
            holds = accumulator == value if kind == 0x15 else accumulator >= value
            assert kind in (0x15, 0x35)
            at += yes if holds else no


@pytest.mark.parametrize("name", seccomp.ARCHITECTURES)
@pytest.mark.parametrize("serving", [False, True])
def test_the_filter_of_each_machine_refuses_what_it_must_and_nothing_else(name: str, serving: bool) -> None:
    machine = seccomp.ARCHITECTURES[name]
    code = seccomp.program(machine, serving=serving)
    passing = seccomp.SERVING if serving else frozenset()
    denied = {machine.numbers[call] for call in seccomp.DENIED if call not in passing}
    assert len(machine.numbers) == len(seccomp.DENIED) == len(set(machine.numbers.values()))
    for number in range(600):
        result = decide(code, number, audit=machine.audit)
        assert (result == 0x50001) == (number in denied), number
        assert result in (0x50001, 0x7FFF0000)
        assert decide(code, number, audit=0x40000003) == 0x50001  # AUDIT_ARCH_I386
    assert decide(code, machine.ioctl, audit=machine.audit, arguments=(3, 0x400454CA)) == 0x50001
    assert decide(code, machine.ioctl, audit=machine.audit, arguments=(3, 0x5401)) == 0x7FFF0000
    if machine.has_x32:
        assert decide(code, 0x40000000 | 1, audit=machine.audit) == 0x50001
    if serving:
        for address in (1, 1 << 40):
            sent = (3, 0, 5, 0, address, 16)
            assert decide(code, machine.numbers["sendto"], audit=machine.audit, arguments=sent) == 0x50001


def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    numbers = {}
    for line in header.read_text(encoding="ascii").splitlines():
        if line.startswith("#define __NR_"):
            _, name, number = line.split()
            numbers[name.removeprefix("__NR_")] = int(number)
    for name, number in seccomp.ARCHITECTURES["x86_64"].numbers.items():
        assert numbers[name] == number, name


def test_every_attempt_goes_elsewhere_without_the_filter_and_is_refused_with_it() -> None:
    """Also for a thread from before, a forked child, another program, x32 and 32-bit calls."""
    bare = python("print(json.dumps([probe.denied for probe in probes.probe()]))")
    assert len(found := json.loads(bare.stdout)) >= 20, bare.stderr
    assert True not in found
    code = "took, proof = probes.prove(offline.take_network_away); print(json.dumps([took.proved, proof.as_json()]))"
    proved, proof = json.loads(python(code).stdout)
    assert proved
    assert proof["holds"]
    assert "Seccomp: 2" in proof["status"]
    assert (proof["threads"], proof["unfiltered"]) == (2, 0)
    assert len(proof["probes"]) == len(found) + 1
    tried = [probe["denied"] for probe in proof["probes"] if probe["denied"] is not None]
    assert all(tried)
    assert len(tried) >= 19


def test_it_takes_no_time_to_speak_of() -> None:
    code = (
        "seccomp.architecture(); begun = time.thread_time(); offline.take_network_away();"
        "print(time.thread_time() - begun)"
    )
    assert min(float(python(code).stdout) for _ in range(3)) < 0.001


def test_inherited_sockets_are_closed_and_told() -> None:
    with socket.socket() as inherited:
        ended = python(
            "print(offline.take_network_away().notes)\n"
            f"try: os.fstat({inherited.fileno()})\nexcept OSError as error: print(error.errno)",
            pass_fds=[inherited.fileno()],
        )
    assert "closed the inherited descriptor" in ended.stdout
    assert ended.stdout.splitlines()[1] == "9"


def test_a_socket_as_a_standard_stream_is_refused() -> None:
    one, other = socket.socketpair()
    with one, other:
        code = "print(offline.take_network_away({}))"
        refused = python(code.format(""), stdin=one)
        assert refused.returncode == 1
        assert "standard input is a socket" in refused.stderr
        allowed = python(code.format("allow_unproved=True"), stdin=one)
    assert "proved=False" in allowed.stdout
    assert "not proved offline: standard input is a socket" in allowed.stdout


def test_where_it_cannot_be_had_the_user_must_say_so() -> None:
    code = "sys.platform = 'darwin'\nprint(offline.take_network_away({}))"
    refused = python(code.format(""))
    assert refused.returncode == 1
    assert "darwin has no seccomp" in refused.stderr
    assert "--allow-unproved" in refused.stderr
    assert "not proved offline: darwin has no seccomp" in python(code.format("allow_unproved=True")).stdout


def test_a_server_keeps_its_listening_socket_and_nothing_more() -> None:
    ended = python(
        "import threading, errno\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "reader = os.dup(client.fileno())\n"
        "spare = socket.socket()\n"
        "took = offline.take_network_away(listener=listener)\n"
        "print(took.proved, len(took.notes))\n"
        "for call in (socket.socket, lambda: socket.create_connection(('127.0.0.1', 9))):\n"
        "    try: call()\n"
        "    except OSError as error: print(error.errno)\n"
        "connection, _ = listener.accept()\n"
        "connection.sendall(b'served')\n"
        "try: connection.sendto(b'x', ('127.0.0.1', 9))\n"
        "except OSError as error: print(error.errno)\n"
    )
    assert ended.stdout.splitlines() == ["True 3", "1", "1", "1"], ended.stderr


@pytest.mark.parametrize("where", ["('0.0.0.0', 0)", "('', 0)"])
def test_a_server_on_another_address_is_refused(where: str) -> None:
    ended = python(f"offline.take_network_away(listener=socket.create_server({where}))")
    assert "loopback addresses only" in ended.stderr


def test_chat_runs_under_the_filter_and_proves_it(run_chat: Callable[..., Any], model: Path) -> None:
    shown = run_chat("--prove-offline")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.decode().splitlines()
    assert "Seccomp: 2" in lines
    assert sum(line.startswith("refused") for line in lines) >= 19
    assert not any(line.startswith("NOT") for line in lines)
    assert json.loads(run_chat("--prove-offline", "--json").stdout)["holds"]
    with socket.socket() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        code = f"import os; os.dup2({inherited.fileno()}, 0); os.execvp(os.sys.executable, os.sys.argv[1:])"
        prefix = (sys.executable, "-c", code)
        ended = subprocess.run(
            [*prefix, sys.executable, "-c", "from medmind_runtime.cli import main; main()", str(model), "-p", "hi"],
            capture_output=True,
            check=False,
            pass_fds=[inherited.fileno()],
        )
    assert ended.returncode == 1
    assert b"standard input is a socket" in ended.stderr
