"""What ends a program from outside: it is heard, with its exit code, and never in the middle of an import."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmind import signals
from medmind.signals import held

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*signals.numbers(), signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("name", "end", "code"),
    [("SIGINT", KeyboardInterrupt, None), ("SIGTERM", SystemExit, 143), ("SIGHUP", SystemExit, 129)],
)
def test_what_comes_in_the_middle_of_an_import_is_raised_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: type[BaseException], code: int | None
) -> None:
    number = getattr(signal, name)
    (tmp_path / f"told_{name}.py").write_text(f"import signal\nsignal.raise_signal({int(number)})\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    signals.hear(number)
    with pytest.raises(end) as ended:
        importlib.import_module(f"told_{name}")
        time.sleep(60)
    assert sys.modules.pop(f"told_{name}").whole
    assert getattr(ended.value, "code", None) == code


def test_of_several_that_come_in_an_import_one_that_no_program_outlives_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["import signal", *(f"signal.raise_signal({number})" for number in (15, 2))]
    (tmp_path / "told_twice.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM):
        signals.hear(number)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("told_twice")
        time.sleep(60)
    assert ended.value.code == 143


def test_what_is_ignored_stays_so() -> None:
    for number in signals.numbers():
        signal.signal(number, signal.SIG_IGN)
    signals.become_exceptions()
    signals.kill()
    for number in signals.numbers():
        signal.raise_signal(number)


def test_in_the_end_they_kill() -> None:
    code = "import signal; from medmind.signals import *; become_exceptions(); kill(); signal.raise_signal(15)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGTERM


def test_a_module_that_takes_long_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told_slow.py").write_text("import signal, time\nsignal.raise_signal(2)\ntime.sleep(30)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(signals, "_PATIENCE", 0)
    signals.hear(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("told_slow")
    assert "told_slow" not in sys.modules


def test_the_code_of_import_itself_never_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_PATIENCE", 0)
    signals.hear(signal.SIGINT)
    own = importlib.import_module.__globals__["_bootstrap"]._find_and_load.__code__.co_filename
    lines = "signal.raise_signal(2)\nwhole.append(True)\n"
    whole: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        exec(compile(lines, own, "exec"), {"signal": signal, "whole": whole})
        time.sleep(60)
    assert whole


def test_what_waited_for_an_import_is_held_back_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told_and_held.py").write_text("import signal\nsignal.raise_signal(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    signals.hear(signal.SIGINT)
    whole = False
    with pytest.raises(KeyboardInterrupt):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        importlib.import_module("told_and_held")
        with held() as noted:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
            while not noted:
                time.sleep(0.001)
            whole = True
    assert whole


def test_what_is_held_reaches_its_handler_once_and_what_is_ignored_stays_so() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    with held() as noted:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert noted
        assert seen == []
    assert seen == [signal.SIGINT]
    signal.raise_signal(signal.SIGINT)
    assert len(seen) == 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held() as noted:
        signal.raise_signal(signal.SIGINT)
        assert not noted


def test_of_what_was_held_back_that_which_ends_the_program_comes_before_ctrl_c() -> None:
    signals.become_exceptions()
    with pytest.raises(SystemExit), held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
