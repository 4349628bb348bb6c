"""What happens between Enter and the first prompt: little, and no typer, no rules, no model."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")

from typer.main import get_command

from medmind_runtime import chat, plain_call
from medmind_runtime.command_line import app
from medmind_runtime.config import ChatConfig

from .conftest import CHAT
from .terminal_session import TerminalSession

BEFORE_LOADING = """
import json, os, sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from medmind_runtime.background import Background
def told(self):
    seen = list(opened)
    status = ""
    if sys.platform == "linux":
        status = open("/proc/self/status").read() + open("/proc/self/limits").read()
    with open("before", "w") as file:
        json.dump([list(sys.modules), seen, status], file)
    os._exit(0)
Background.start = told
from medmind_runtime.cli import main
main()
"""
"""Ends where the model would begin to load, and writes what has been imported and opened by then."""
LATER = (
    "typer",
    "pydantic",
    "click",
    "llama_cpp",
    "numpy",
    "jinja2",
    "sqlite3",
    "tomllib",
    "http.server",
    "rich.markdown",
)
"""What the first prompt does without."""
PLAIN = {
    "nothing": [],
    "a model": ["runs/x.gguf"],
    "settings": [
        "--temperature",
        "0.5",
        "m",
        "--context",
        "2048",
        "--max-tokens",
        "7",
        "--seed",
        "3",
        "--threads",
        "2",
    ],
    "choices": ["--kv-type", "q8_0", "--load-mode", "copy", "--gpu-layers", "auto", "--no-markdown", "--no-lookup"],
    "a number of threads": ["--threads", "2", "--lookup", "--no-read-ahead"],
    "files": ["--library", "a/b.library", "--history", "h", "--adapter", "c.gguf", "--gpu-layers", "12", "--markdown"],
    "a text": ["--system", "Be calm.", "--system", ""],
}
LEFT_TO_TYPER = {
    "another command": ["serve", "m"],
    "its own name": ["chat"],
    "help": ["--help"],
    "a question": ["m", "-p", "q"],
    "two models": ["m", "n"],
    "no value": ["m", "--threads"],
    "no number": ["--threads", "two"],
    "no choice": ["--kv-type", "f32"],
    "no layers": ["--gpu-layers", "some"],
    "below zero": ["--temperature", "-1"],
    "joined": ["--threads=2"],
    "shortened": ["--temp", "1"],
    "no such switch": ["--no-threads", "2"],
    "an option for a value": ["--system", "--threads"],
    "the end of options": ["--", "m"],
    "no option": ["--grammar", "root ::= x"],
}


@pytest.mark.parametrize("options", [(), ("--threads", "1", "--temperature", "0.5")], ids=["bare", "options"])
def test_before_the_first_prompt_nothing_is_loaded_that_can_wait(
    model: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with TerminalSession([sys.executable, "-c", BEFORE_LOADING, str(model), *options], tmp_path) as session:
        session.wait_for_prompt()
        session.wait_for("> ")
        assert session.wait_for_end() == 0
    modules, opened, status = json.loads((tmp_path / "before").read_text(encoding="utf-8"))
    assert "prompt_toolkit" in modules
    early = [name for name in modules if name.startswith(("medmind_runtime.safety.", "medmind_runtime.engine.engine"))]
    assert early + [name for name in LATER if name in modules] == []
    assert [name for name in opened if name.endswith(".toml")] == []
    assert opened.count(str(model)) == 1
    if sys.platform == "linux":
        assert "Seccomp:\t2\n" in status  # a filter: the network is gone before a model is there
        assert re.search("Max core file size +0 +0 ", status)


@pytest.mark.parametrize("words", PLAIN.values(), ids=PLAIN)
def test_a_plain_call_says_the_same_with_and_without_typer(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[plain_call.PlainCall] = []
    monkeypatch.setattr(chat, "run", lambda name, config, **_: asked.append(plain_call.PlainCall(name, config)))
    app(words, standalone_mode=False)
    assert asked == [plain_call.read(words)]


@pytest.mark.parametrize("words", LEFT_TO_TYPER.values(), ids=LEFT_TO_TYPER)
def test_what_is_not_plain_is_left_to_typer(words: list[str]) -> None:
    assert plain_call.read(words) is None


def test_settings_and_commands_are_those_of_the_command_line() -> None:
    commands = get_command(app).commands
    assert set(commands) == plain_call.COMMANDS
    settings = {field.name for field in fields(ChatConfig)} - plain_call.UNNAMED
    options = {option.name: option.opts + option.secondary_opts for option in commands["chat"].params}
    assert settings <= options.keys()
    for name in settings:
        spelt = f"--{name.replace('_', '-')}"
        assert set(options[name]) <= {spelt, spelt.replace("--", "--no-", 1)}
        assert spelt in options[name]


@pytest.mark.slow
def test_the_prompt_is_there_within_300_ms(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = make_model()
    prompts, bare = [], []
    for _ in range(20):
        begun = time.perf_counter()
        with TerminalSession([*CHAT, str(model)], tmp_path, PYTHONDONTWRITEBYTECODE="") as session:
            session.wait_for_prompt()
            session.wait_for("> ")
            prompts.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.perf_counter() - begun)
    prompt, nothing = statistics.median(prompts), statistics.median(bare)
    print(f"prompt after {1000 * prompt:.0f} ms, python -c pass after {1000 * nothing:.0f} ms")
    # Where Python itself takes longer than the 16 ms that it took where 300 ms were asked for, so may the prompt.
    assert prompt < 0.3 * max(1, nothing / 0.016)
