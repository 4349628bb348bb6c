"""A crash leaves no picture of the memory in which what was said lies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="core dumps are a Unix thing")

SWITCHES = """
import ctypes, json, os, resource, sys
from medmind_runtime import core_dumps
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
def switches():
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) if sys.platform == "linux" else 0
    return [*resource.getrlimit(resource.RLIMIT_CORE), dumpable]
before = switches()
core_dumps.forbid()
print(json.dumps([before[2], switches()]))
"""


def test_both_switches_are_off_whatever_was_allowed_and_in_forks_too() -> None:
    code = SWITCHES + "sys.stdout.flush()\nif os.fork() == 0: print(json.dumps(switches()))\nelse: os.wait()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    first, forked = map(json.loads, done.stdout.splitlines())
    assert first == [int(sys.platform == "linux"), [0, 0, 0]]
    assert forked == [0, 0, 0]


def test_a_process_that_aborts_leaves_no_file(tmp_path: Path) -> None:
    abort = [sys.executable, "-c", SWITCHES + "os.abort()"]
    done = subprocess.run(abort, check=False, cwd=tmp_path, capture_output=True)
    assert done.returncode == -6
    assert list(tmp_path.iterdir()) == []
