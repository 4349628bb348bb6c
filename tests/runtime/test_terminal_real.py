"""The real chat in a terminal: what it keeps, what it reaches, and that it stops."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")

import termios

from .terminal_chats import real
from .terminal_session import TerminalSession

pytestmark = pytest.mark.usefixtures("_warm")


def test_the_real_chat_opens_with_what_it_is_and_answers(model: Path, tmp_path: Path) -> None:
    with real(model, tmp_path) as session:
        session.wait_for("not a doctor")
        session.wait_for_prompt()
        for _ in range(3):
            session.press("what is it?\r")
            session.wait_for("cut at 12 tokens")
            session.wait_for_prompt()
        session.press("/stats\r")
        session.wait_for("remembered from before")
        session.wait_for_prompt()
        session.press("/info\r")
        session.wait_for("KV cache")
        session.wait_for_prompt()
        session.press("\x04")
        assert session.wait_for_end() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_question_for_standard_input_is_typed_where_that_is_a_terminal(model: Path, tmp_path: Path) -> None:
    with real(model, tmp_path, options=["-p", "-"]) as session:
        session.wait_for("Ctrl-D in a line of its own ends it.")
        session.press("what is it?\rand why?\r\x04")
        session.wait_for("[cut at 12 tokens")
        assert session.wait_for_end() == 0


def test_the_real_chat_stops_within_a_prompt_and_within_an_answer(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    slow = make_model(width=384, layers=10, context=4096)
    with real(slow, tmp_path, tokens=3000) as session:
        session.wait_for_prompt()
        session.press("\x1b[200~" + "word of it. " * 200 + "\x1b[201~\r")
        session.wait_for("\x1b[?2004l")  # the editor has taken the question
        time.sleep(0.3)
        session.press("\x03")
        session.wait_for("[stopped")
        session.wait_for_prompt()
        session.press("/new\r")
        session.wait_for_prompt()
        session.press("q\r")
        session.wait_for("\x1b[?2004l")
        time.sleep(0.5)
        session.press("\x03")
        session.wait_for("[stopped")
        session.wait_for_prompt()
        session.press("/exit\r")
        assert session.wait_for_end() == 0


def modes(session: TerminalSession) -> int:
    return int(termios.tcgetattr(session._master)[3])


def test_ctrl_backslash_in_a_prompt_that_is_read_leaves_the_terminal_as_it_was(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    slow = make_model(width=384, layers=10, context=4096)
    with real(slow, tmp_path, tokens=3000) as session:
        before = modes(session) | termios.ECHO | termios.ICANON | termios.ISIG
        session.wait_for_prompt()
        session.press("\x1b[200~" + "word of it. " * 200 + "\x1b[201~\r")
        session.wait_for("\x1b[?2004l")
        while modes(session) & (termios.ECHO | termios.ISIG) != termios.ISIG:
            assert session.process.poll() is None
        session.press("\x1c")
        assert session.wait_for_end() == -signal.SIGQUIT
        assert modes(session) == before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGQUIT, -signal.SIGQUIT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_what_ends_the_chat_at_the_prompt_leaves_the_terminal_as_it_was(
    model: Path, tmp_path: Path, number: int, code: int
) -> None:
    with real(model, tmp_path) as session:
        session.wait_for_prompt()
        os.kill(session.process.pid, number)
        assert session.wait_for_end() == code
        wanted = termios.ECHO | termios.ICANON | termios.ISIG
        assert modes(session) & wanted == wanted
        assert session.output.endswith(b"\r\n\x1b[0m\x1b[?7h\x1b[?25h\x1b[?2004l")


def needed(program: str) -> str:
    """A test of what matters most does not pass over a missing program in silence."""
    assert shutil.which(program), f"{program} is not installed; the offline tests need it"
    return program


@pytest.mark.parametrize("turns", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_conversation_makes_no_network_system_call(model: Path, tmp_path: Path, turns: int) -> None:
    trace = tmp_path / "trace"
    strace = [needed("strace"), "-f", "-qq", "-o", str(trace), "-e", "trace=%network,io_uring_setup,read"]
    with real(model, tmp_path, *strace) as session:
        session.wait_for_prompt()
        for number in range(turns):
            session.press(f"question {number}\r")
            session.wait_for("cut at 12 tokens")
            session.wait_for_prompt()
        session.press("/exit\r")
        assert session.wait_for_end() == 0
    calls = re.findall(r"^\d+ +(\w+)\(", trace.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    assert calls.count("read") > 5 * turns  # the trace did see the conversation
    assert [call for call in calls if call != "read"] == []


def test_a_saved_conversation_goes_on_where_it_was_computed(model: Path, tmp_path: Path) -> None:
    """The second program evaluates what is new alone; a damaged state costs time and nothing else."""
    with real(model, tmp_path) as session:
        for line in ("one two three", "/save talk.json --state"):
            session.wait_for_prompt()
            session.press(f"{line}\r")
        session.wait_for("talk.json.state (")
        session.wait_for_prompt()
        session.press("/save --state other.json\r")
        session.wait_for("other.json.state (")
        session.press("/exit\r")
        assert session.wait_for_end() == 0
    state = tmp_path / "talk.json.state"
    assert state.stat().st_mode & 0o777 == 0o600
    remembered = []
    for note in ("The last was: one two three", "the conversation will be read anew: talk.json.state is damaged"):
        with real(model, tmp_path, options=["--no-read-ahead"]) as session:
            session.wait_for_prompt()
            session.press("/load talk.json\r")
            session.wait_for(note)
            for line, answer in (("and four", "cut at 12 tokens"), ("/stats", "remembered from before")):
                session.wait_for_prompt()
                session.press(f"{line}\r")
                session.wait_for(answer)
            found = re.search(r"(\d+) tokens, (\d+) of them remembered", session.screen())
            assert found
            remembered.append(int(found[2]))
            session.press("/exit\r")
            session.wait_for_end()
        state.write_bytes(state.read_bytes()[:-1])
    assert remembered[0] > 5
    assert remembered[1] == 0


def test_it_answers_where_there_is_no_network_at_all(
    run_chat: Callable[..., subprocess.CompletedProcess[bytes]], model: Path
) -> None:
    prefix = (needed("unshare"), "--net", "--map-root-user")
    done = run_chat(model, "-p", "q", "--max-tokens", 8, "--threads", 1, prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_history_is_kept_only_when_asked_for_and_for_its_owner_alone(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "typed"
    for _ in range(2):
        with real(model, tmp_path, tokens=2, options=("--history", "typed")) as session:
            session.wait_for("What you type is kept in typed; only you can read it (0600).")
            session.wait_for_prompt()
            session.press("is it bad?\r")
            session.wait_for("cut at 2 tokens")
            session.wait_for_prompt()
            assert file.stat().st_mode & 0o777 == 0o600
            assert file.read_text(encoding="utf-8").count("+is it bad?") == 1
            file.unlink()
            session.press("/context\r")
            session.wait_for("in all")
            session.wait_for_prompt()
            assert file.stat().st_mode & 0o777 == 0o600
            assert file.read_text(encoding="utf-8").count("+/context") == 1
            file.unlink()
            file.mkdir()
            session.press("/undo\r")
            session.wait_for("[this line is not kept: typed cannot be written: Is a directory")
            session.wait_for("Taken back: is it bad?")
            session.wait_for_prompt()
            file.rmdir()
            session.press("/exit\r")
            assert session.wait_for_end() == 0
