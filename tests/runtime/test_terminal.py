import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import forked
import pytest

from medmind_runtime.cli import main

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")

from .conftest import CHAT
from .terminal_session import TerminalSession

pytestmark = pytest.mark.usefixtures("_warm")

FAKE = """
import sys, time
from medmind import console
from medmind.errors import MedmindError
from medmind_runtime.terminal import commands, line_input
from medmind_runtime.background import Background
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.guard import Before, Unguarded
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.terminal.interactive import Opened, Terminal
from medmind_runtime.turn import Passage
answers, context, delay, load, guarded = eval(sys.argv[1])
class Guard(Unguarded):
    def before(self, question, earlier, cancel):
        if "pain" in question:
            return Before("Call for help NOW.", passages=[Passage("the text", "a leaflet", "https://example.org")])
        return Before()
engine = FakeEngine(answers, context=context, delay=delay)
guard = Guard() if guarded else Unguarded()
talk = Conversation(engine, system="calm", sampling=Sampling(), max_tokens=1000, guard=guard)
def make(cancel):
    until = time.monotonic() + abs(load)
    while time.monotonic() < until and not cancel():
        time.sleep(0.01)
    if load < 0:
        raise MedmindError("no such luck")
    return Opened(talk, "fake", "calm", {}, {"threads": "none"}, ["a note on the model"])
opening = Background("load", make, lambda: editor.wake())
editor = line_input.Editor(commands.ARGUMENTS, commands.COMMANDS, lambda: opening)
terminal = Terminal(
    opening, Background("guard", lambda cancel: guard), editor, commands.Commands(lambda name, opened: opening)
)
def run():
    try:
        terminal.run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        opening.close()
        print("PROMPTS", engine.prompts, [s.temperature for s in engine.samplings], len(talk.turns))
class App:
    __call__ = staticmethod(run)
console.run(App())
"""


def fake(
    tmp_path: Path,
    answers: list[str],
    *,
    context: int = 4000,
    delay: float = 0.0,
    load: float = 0.0,
    guarded: bool = False,
    **env: str,
) -> TerminalSession:
    """A chat with a fake engine that takes `load` seconds to load; negative: and then fails."""
    options = repr((answers, context, delay, load, guarded))
    if forked.available and not env:

        def start() -> None:
            sys.argv = ["-c", options]
            exec(FAKE, {})

        return TerminalSession(start, tmp_path)
    return TerminalSession([sys.executable, "-c", FAKE, options], tmp_path, **env)


def real(model: Path, tmp_path: Path, *prefix: str, tokens: int = 12, options: Sequence[str] = ()) -> TerminalSession:
    home = dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"), str(tmp_path))
    arguments = [str(model), "--max-tokens", str(tokens), "--threads", "1", *options]
    if forked.available and not prefix:

        def start() -> None:
            sys.argv = ["medmind-chat", *arguments]
            main()

        return TerminalSession(start, tmp_path, **home)
    return TerminalSession([*prefix, *CHAT, *arguments], tmp_path, **home)


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


def test_ctrl_c_twice_at_the_prompt_leaves_with_130(tmp_path: Path) -> None:
    with fake(tmp_path, ["x"]) as session:
        session.wait_for_prompt()
        session.press("\x03")
        session.wait_for("Ctrl-C once more leaves")
        session.wait_for_prompt()
        session.press("\x03")
        assert session.wait_for_end() == 130


def test_the_commands(tmp_path: Path) -> None:
    with fake(tmp_path, ["first.", "second."]) as session:

        def command(line: str, answer: str) -> None:
            session.wait_for_prompt()
            session.press(f"{line}\r")
            session.wait_for(answer)

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


def test_edit_set_context_save_and_load(tmp_path: Path) -> None:
    with fake(tmp_path, ["**first**.", "second."]) as session:

        def command(line: str, answer: str) -> None:
            session.wait_for_prompt()
            session.press(f"{line}\r")
            session.wait_for(answer)

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
        session.wait_for("error: the question does not fit: it takes 1000017 tokens")
        session.wait_for_prompt()
        session.press("\x04")
        assert session.wait_for_end() == 0


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
