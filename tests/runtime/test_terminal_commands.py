"""The commands of a chat, typed and completed."""

import json
import time
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")

from .terminal_chats import fake
from .terminal_session import TerminalSession

pytestmark = pytest.mark.usefixtures("_warm")


def answered(session: TerminalSession, line: str, answer: str) -> None:
    session.wait_for_prompt()
    session.press(f"{line}\r")
    session.wait_for(answer)


def test_the_commands(tmp_path: Path) -> None:
    with fake(tmp_path, ["first.", "second."]) as session:
        command = partial(answered, session)
        command("/help", "counts as 0.7 here")
        command(f"/save {'x' * 300}", "File name too long — give another file")
        (tmp_path / "circle").symlink_to("circle")
        command("/save! circle", "Saved to circle; only you can read it")
        command("/save .", "error: . is a folder")
        command("/save! circle/a", "error: circle/a cannot be written: Not a directory")
        command("/load ~nobody.of.that.name/a", "there is no such user")
        command("/undo", "There is nothing to take back.")
        command("/regen", "error: there is no question to go back to")
        command("/stats", "error: there is no answer yet")
        command("q one", "first.")
        command("/stats", "ended by")
        command("/regen", "second.")
        command("/undo", "Taken back: q one")
        command("/system", "calm")
        command("/system kind", "System prompt set; a new conversation.")
        command("q two", "first.")
        command("/new", "A new conversation.")
        command("/info", "fake")
        command("/nonsense", "error: there is no command /nonsense")
        command(" /nope hi", "second.")
        command("/exit", "PROMPTS")
        assert session.wait_for_end() == 0
        shown = session.output.decode().replace("\r\n", "")
        assert "'<system>calm<user>q one', '<system>calm<user>q one', '<system>kind<user>q two'" in shown
        assert ", '<system>kind<user>/nope hi'" in shown
        assert "[0.0, 0.7, 0.0, 0.0] 1" in shown


def test_edit_set_context_save_and_load(tmp_path: Path) -> None:
    with fake(tmp_path, ["**first**.", "second."]) as session:
        command = partial(answered, session)
        command("/edit", "error: there is no question to go back to")
        command("q one", "first")
        session.wait_for_prompt()
        session.press("/edit\r")
        session.wait_for_prompt()
        session.press("!\r")
        session.wait_for("second.")
        command("/set temperature 0.4", "temperature is 0.4 from now on.")
        command("/set temperature hot", "error: temperature is 'hot' and must be a number")
        command("/set temperature 99", "error: temperature is 99.0 and must be between 0 and 10")
        command("/set nonsense 1", "error: there is no setting nonsense")
        command("/set max-tokens 0", "error: max-tokens is 0 and must be 1 or more")
        command("/context", "tokens in 1 question with their answers")
        command("/sources", "The last answer was given no sources.")
        command("/load", "error: the name of the file is missing")
        command("/load none.json", "error: none.json does not exist")
        command("/save talk.json", "Saved to talk.json; only you can read it (0600).")
        command("/new", "A new conversation.")
        command("/load talk.json", "Loaded 1 question with answers from talk.json.")
        command("more", "first")
        command("/save talk.json", "Saved to talk.json again, with what was said since")
        command("/new", "A new conversation.")
        command("other", "second.")
        command("/save talk.json", "error: talk.json exists already")
        command("/save! other.json", "Saved to other.json; only you can read it (0600).")
        command("/save! talk.json", "Saved to talk.json; only you can read it (0600).")
        command("/load other.json", "Loaded 1 question")
        command("/exit", "PROMPTS")
        assert session.wait_for_end() == 0
        shown = session.output.decode().replace("\r\n", "")
        assert "'<system>calm<user>q one', '<system>calm<user>q one!'" in shown
        assert "'<system>calm<user>q one!<assistant>second.<user>more'" in shown
    saved = tmp_path / "talk.json"
    assert saved.stat().st_mode & 0o777 == 0o600
    document = json.loads(saved.read_text(encoding="utf-8"))
    assert [turn["question"] for turn in document["turns"]] == ["other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json", "talk.json"]


def test_commands_and_settings_are_completed(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"]) as session:
        session.wait_for_prompt()
        session.press("/und")
        session.wait_for("take back")  # the menu, with what each command does
        session.press("\t")
        session.wait_for("o")
        session.press("\r")
        session.wait_for("nothing to take back")
        session.wait_for_prompt()
        session.press("/set temper")
        session.wait_for("temperature")
        session.press("\t")
        time.sleep(0.3)  # the menu is made beside the typing, and keys do not wait for it
        session.press("0.3\r")
        session.wait_for("temperature is 0.3")
