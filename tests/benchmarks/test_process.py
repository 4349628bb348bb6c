import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from medmind_benchmarks.cause import REMEDIES
from medmind_benchmarks.process import CellError, Limits, run_cell


@dataclass(frozen=True)
class Question:
    number: int


@dataclass(frozen=True)
class Answer:
    number: int


def ask(script: str, *, steps: list[int] | None = None) -> Answer:
    counted = [] if steps is None else steps
    return run_cell(
        Question(7),
        Answer,
        advance=lambda: counted.append(1),
        command=[sys.executable, "-c", f"import json, os, sys\n{script}"],
    )


def test_a_cell_answers_and_its_steps_are_counted() -> None:
    steps: list[int] = []
    script = (
        "n = json.loads(sys.stdin.readline())['number']\n"
        "print('{\"progress\": 1}'); print('library noise'); print('{\"progress\": 2}')\n"
        "print(json.dumps({'result': {'number': n * 2}}))"
    )
    assert ask(script, steps=steps) == Answer(14)
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('print(\'{"error": "too little room"}\')', "too little room"),
        ("sys.exit('bad luck')", "exit code 1: bad luck"),
        ("sys.stdin.readline(); os.kill(os.getpid(), 9)", "ran out of memory"),
        ("sys.stdin.readline(); os.abort()", "crashed .SIGABRT"),
        ('print(\'{"result": {"other": 1}}\')', "unexpected"),
        ("pass", "exit code 0"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_cell_that_fails_says_why(script: str, words: str) -> None:
    with pytest.raises(CellError, match=words):
        ask(script)


def test_a_cell_over_a_limit_is_ended_with_the_reason() -> None:
    idle = "import sys, time; sys.stdin.readline(); time.sleep(30)"
    hungry = "import sys, time; sys.stdin.readline(); held = b'1' * 2**27; time.sleep(30)"
    for script, limits, words, cause in (
        (idle, Limits(seconds=0.5), "longer than its limit of 0.5 s", "cell time"),
        (hungry, Limits(memory=2**26), r"memory of its own, its limit is 64.00 MiB \(--cell-memory\)", "cell memory"),
        (hungry, Limits(memory=2**26, asked=False), r"its limit is 64.00 MiB \(nearly all that was free\)", "memory"),
    ):
        with pytest.raises(CellError, match=words) as ended:
            run_cell(Question(1), Answer, advance=lambda: None, command=[sys.executable, "-c", script], limits=limits)
        assert ended.value.cause == cause


def test_a_limit_that_nobody_gave_is_not_answered_with_its_option() -> None:
    assert REMEDIES["cell memory"] == "allow more with --cell-memory"
    assert REMEDIES["memory"] == "give smaller files, a smaller --context, or a machine with more memory"


def test_interrupting_the_parent_ends_the_cell(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    script = (
        f"open({str(place)!r}, 'w').write(str(os.getpid()))\n"
        "print('{\"progress\": 1}', flush=True)\n"
        "import time; time.sleep(60)"
    )

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(
            Question(1),
            Answer,
            advance=interrupt,
            command=[sys.executable, "-c", f"import json, os, sys\n{script}"],
        )
    assert not psutil.pid_exists(int(place.read_text()))


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process group")
def test_a_cell_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import subprocess, sys, time\n"
        "from medmind_benchmarks.process import CELL\n"
        "cell = subprocess.Popen(CELL, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "print(cell.pid, flush=True)\n"
        "time.sleep(60)\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([sys.executable, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    cell = int(process.stdout.readline())
    assert psutil.pid_exists(cell)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(cell) and psutil.Process(cell).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the cell is still there"
        time.sleep(0.05)
