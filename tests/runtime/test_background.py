"""Work in a thread of its own: begun whole or not at all, and waited for by nothing that Ctrl-C may leave locked."""

import signal
import threading

import pytest

from medmind_runtime.background import Background
from medmind_runtime.interruption import Interrupted


def test_a_thread_that_is_begun_is_not_broken_off_by_what_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        signal.raise_signal(signal.SIGTERM)
        begin(thread)

    def end(_number: int, _frame: object) -> None:
        raise SystemExit

    begin = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    before = signal.signal(signal.SIGTERM, end)
    try:
        work = Background("work", lambda cancel: "done")
        with pytest.raises(SystemExit):
            work.start()
        assert work.wait() == "done"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nobody_waits_by_a_lock_that_ctrl_c_may_leave_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Event's, and a Condition's, is taken and let go by Python's own lines, between which an exception may fall."""

    def locked(*_: object) -> bool:
        raise AssertionError("waits by an Event")

    more = threading.Lock()
    more.acquire()
    work = Background("work", lambda cancel: more.acquire(timeout=60))
    work.start()
    monkeypatch.setattr(threading.Event, "wait", locked)
    looks: list[bool] = []

    def look() -> bool:
        looks.append(True)
        if len(looks) == 2:
            more.release()
        return False

    assert work.wait(look)
    assert len(looks) > 1


def test_what_is_closed_before_it_began_never_begins() -> None:
    begun: list[bool] = []
    work = Background("work", lambda cancel: begun.append(True))
    work.close()
    work.start()
    with pytest.raises(Interrupted):
        work.wait()
    assert begun == []
