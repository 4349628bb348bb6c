"""A chat as its keys and its screen have it: turns, Ctrl-C, pastes, drawing, and a model that loads meanwhile."""

import re
import time
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")

from .terminal_chats import fake

pytestmark = pytest.mark.usefixtures("_warm")


def test_a_conversation_of_several_turns(tmp_path: Path) -> None:
    with fake(tmp_path, ["It is a cold.", "It passes: 😀."]) as session:
        session.wait_for_prompt()
        session.press("what is it?\r")
        session.wait_for("It is a cold.")
        session.wait_for_prompt()
        session.press("and then?\r")
        session.wait_for("It passes: 😀.")
        session.wait_for_prompt()
        session.press("/exit\r")
        assert session.wait_for_end() == 0
        prompts = "<system>calm<user>what is it?<assistant>It is a cold.<user>and then?"
        assert prompts in session.screen().replace("\n", "")


def test_ctrl_c_stops_the_answer_and_not_the_program_and_the_context_is_kept(tmp_path: Path) -> None:
    with fake(tmp_path, ["abcdefghij" * 100, "short."], delay=0.02) as session:
        session.wait_for_prompt()
        session.press("go\r")
        session.wait_for("abcdef")
        pressed = time.monotonic()
        session.press("\x03")
        session.wait_for("[stopped]")
        assert time.monotonic() - pressed < 1
        session.wait_for_prompt()
        session.press("more\r")
        session.wait_for("short.")
        session.wait_for_prompt()
        session.press("\x04")
        assert session.wait_for_end() == 0
        assert "<user>go<assistant>abcdef" in session.screen().replace("\n", "")


def test_ctrl_c_that_stops_an_answer_and_once_more_leaves_with_130(tmp_path: Path) -> None:
    with fake(tmp_path, ["abcdefghij" * 100], delay=0.02) as session:
        session.wait_for_prompt()
        session.press("go\r")
        session.wait_for("abcdef")
        session.press("\x03")
        session.wait_for("[stopped]")
        session.wait_for_prompt()
        session.press("\x03")
        assert session.wait_for_end() == 130


def test_two_ctrl_c_in_one_write_at_the_prompt_are_two(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"]) as session:
        session.wait_for_prompt()
        session.press("\x03\x03")
        session.wait_for("Ctrl-C once more leaves")
        assert session.wait_for_end() == 130


def test_ctrl_c_twice_at_the_prompt_leaves_with_130(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"]) as session:
        session.wait_for_prompt()
        session.press("\x03")
        session.wait_for("Ctrl-C once more leaves")
        session.wait_for_prompt()
        session.press("\x03")
        assert session.wait_for_end() == 130


def test_a_question_of_several_lines_by_paste_and_by_alt_enter(tmp_path: Path) -> None:
    with fake(tmp_path, ["fine."]) as session:
        session.wait_for_prompt()
        session.press("\x1b[200~one\ntwo\x1b[201~")
        session.press("\x1b\rthree\r")
        session.wait_for("fine.")
        session.wait_for_prompt()
        session.press("\x04")
        session.wait_for_end()
        assert r"<user>one\ntwo\nthree" in session.screen()


def test_what_leaves_a_full_context_is_announced_and_what_does_not_fit_refused(tmp_path: Path) -> None:
    with fake(tmp_path, ["The quick brown fox jumps over a lazy dog while it rains now"], context=200) as session:
        session.wait_for_prompt()
        for _ in range(3):
            session.press("a question\r")
            session.wait_for("rains now")
            session.wait_for_prompt()
        session.press("z" * 300 + "\r")
        session.wait_for("error: the question does not fit: it takes 318 tokens")
        session.wait_for_prompt()
        session.press("\x04")
        assert session.wait_for_end() == 0
        assert b"[the context is full: the oldest question and its answer have left it" in session.output


def test_a_model_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with fake(tmp_path, ["safe\x1b]0;title\x07\x1b[2J\x9b31m!"]) as session:
        session.wait_for_prompt()
        session.press("q\r")
        session.wait_for("safe]0;title[2J31m!")


def test_no_color_leaves_no_colour(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"], NO_COLOR="1", TERM="xterm-256color") as session:
        session.wait_for_prompt()
        session.press("/he\r")
        session.wait_for("error")
        session.wait_for_prompt()
        session.press("\x04")
        session.wait_for_end()
        assert not re.search(rb"\x1b\[[0-9;]*(3[1-8]|4[1-8])m", session.output)


def test_the_prompt_is_there_while_the_model_loads_and_first_aid_before_it_is(tmp_path: Path) -> None:
    with fake(tmp_path, ["an answer."], load=2.5, guarded=True) as session:
        begun = time.monotonic()
        session.wait_for_prompt()
        session.press("/help\r")
        session.wait_for("/sources")
        session.wait_for_prompt()
        session.press("chest pain\r")
        session.wait_for("Call for help NOW.")
        assert time.monotonic() - begun < 2.5
        session.wait_for("[the model is still loading]")
        session.press("\x03")
        session.wait_for("[stopped before the model was there]")
        session.wait_for_prompt()
        session.press("chest pain\r")
        session.wait_for("a note on the model")
        session.wait_for("an answer.")
        session.wait_for_prompt()
        session.press("/sources\r")
        session.wait_for("[1] a leaflet https://example.org")
        session.wait_for_prompt()
        session.press("/exit\r")
        assert session.wait_for_end() == 0
        screen = session.screen()
        assert "<assistant>" not in screen
        assert "Call for help NOW.\n[the model is still loading]\n[stopped before the model was there]\n" in screen
        assert screen.count("Call for help NOW.") == 2  # drawn once each, also where notes come below it
        assert "a note on the model\n\nan answer.\n" in screen


def test_a_model_that_cannot_be_loaded_ends_the_prompt_with_one_line(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"], load=-0.5) as session:
        session.wait_for_prompt()
        session.wait_for("no such luck")
        assert session.wait_for_end() == 1
        assert b"Traceback" not in session.output


def test_leaving_while_the_model_loads_does_not_wait_for_it(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"], load=25) as session:
        session.wait_for_prompt()
        session.press("/exit\r")
        begun = time.monotonic()
        assert session.wait_for_end() == 0
        assert time.monotonic() - begun < 5


def test_markdown_is_drawn_and_can_be_turned_off(tmp_path: Path) -> None:
    with fake(tmp_path, ["# Fever\n\n- **rest**\n- drink"]) as session:
        session.wait_for_prompt()
        session.press("q\r")
        session.wait_for("drink")
        session.wait_for_prompt()
        assert " • rest\n • drink" in session.screen()
        assert "**" not in session.screen()
        session.press("/set markdown off\r")
        session.wait_for("markdown is off")
        session.wait_for_prompt()
        session.press("q\r")
        session.wait_for("**rest**")


def test_a_megabyte_is_pasted_as_one_mark_and_refused_with_its_size(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"], context=4000) as session:
        session.wait_for_prompt()
        session.paste("word " * 200_000)
        session.wait_for("[paste 1: 1,000,000 characters]")
        session.press("\r")
        session.wait_for("error: the question does not fit: it takes at least 2")
        session.wait_for_prompt()
        session.press("\x04")
        assert session.wait_for_end() == 0


def test_control_characters_typed_and_a_changed_size_do_no_harm(tmp_path: Path) -> None:
    with fake(tmp_path, ["word " * 60], delay=0.003) as session:
        session.wait_for_prompt()
        session.press("\x1b[200~a\x00b\x1b\x07c\x1b[201~\r")
        session.wait_for("word")
        session.resize(20, 10)
        session.wait_for_prompt()
        session.press("\x04")
        assert session.wait_for_end() == 0
        assert b"Traceback" not in session.output
