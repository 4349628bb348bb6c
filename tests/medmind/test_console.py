"""How a command ends, and what is on which stream."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest

from medmind import console
from medmind.errors import MedmindError

Command = Callable[..., subprocess.CompletedProcess[str]]
APP = """
import sys, typer
from pathlib import Path
from medmind import console
from medmind.errors import MedmindError
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
def main():
    {body}
console.run(app)
"""
CLIS = ["medmind_train.cli", "medmind_convert.cli", "medmind_runtime.cli", "medmind_benchmarks.cli"]
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "llama_cpp",
    "matplotlib",
    "gguf",
    "huggingface_hub",
)


def run(command: Command, body: str, **env: str) -> subprocess.CompletedProcess[str]:
    return command(APP.format(body=body), **env)


def test_a_command_that_ends_well_exits_with_0(command: Command) -> None:
    done = run(command, "print('fine')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_medmind_error_is_one_line_on_stderr_and_exit_code_1(command: Command) -> None:
    done = run(command, "raise MedmindError('no such\\nthing', 'make one')")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: no such thing — make one\n")


def test_a_long_error_stays_one_line_in_a_narrow_terminal(command: Command) -> None:
    done = run(command, "raise MedmindError('long ' * 100, 'hint')", COLUMNS="40")
    assert len(done.stderr.splitlines()) == 1


def test_markup_in_an_error_is_shown_as_it_is(command: Command) -> None:
    assert "[red]a[/red][0]" in run(command, "raise MedmindError('[red]a[/red][0]')").stderr


def test_what_could_steer_a_terminal_is_made_visible() -> None:
    assert str(MedmindError("a\x1b[2Jb\x00c\u202ed", "x\ty")) == "a�[2Jb�c�d — x y"


def test_an_error_of_the_system_is_one_line_that_names_the_file(command: Command) -> None:
    done = run(command, "Path('absent\\n.txt').read_text()")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: absent .txt: No such file or directory\n"


def test_a_defect_keeps_its_traceback(command: Command) -> None:
    done = run(command, "raise RuntimeError('a defect')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_ctrl_c_exits_with_130(command: Command) -> None:
    done = run(command, "raise KeyboardInterrupt")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_wrong_usage_exits_with_2(command: Command) -> None:
    done = command(APP.format(body="pass"), "--absent")
    assert done.returncode == 2


def test_json_is_alone_on_stdout(command: Command) -> None:
    body = "console.note('a note'); console.emit_json({'a': 'ü', 'n': 1}); console.err.print('more')"
    done = run(command, body)
    assert json.loads(done.stdout) == {"a": "ü", "n": 1}
    assert "a note" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_can_be_written_to_a_pipe_of_any_encoding(command: Command, encoding: str) -> None:
    done = run(command, "console.emit_json({'a': '二\\udc80'})", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"a": "二\udc80"}


def test_a_missing_extra_is_the_install_line(command: Command) -> None:
    done = run(command, "console.require('not_there_at_all', 'runtime')")
    assert done.returncode == 1
    assert done.stderr == (
        "error: the Python package 'not_there_at_all' is needed here and not installed"
        " — run: pip install 'medmind[runtime]'\n"
    )


def test_progress_off_the_terminal_prints_nothing(command: Command) -> None:
    done = run(command, "\n    with console.progress('x', 10, 'B') as advance:\n        advance(10, status='s')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("unit", "shown"), [("B", "3.0/4.0 MiB"), ("tok", "3145728/4194304")])
def test_progress_shows_bytes_as_people_read_them(monkeypatch: pytest.MonkeyPatch, unit: str, shown: str) -> None:
    import io

    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=200, color_system=None))
    with console.progress("weights", 4 << 20, unit) as advance:
        advance(3 << 20, status="checking")
    assert shown in screen.getvalue()
    assert "checking" in screen.getvalue()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (4_370_000_000, "4.07 GiB"),
        (1 << 40, "1.00 TiB"),
        (1 << 52, "4096.00 TiB"),
    ],
)
def test_bytes_are_shown_in_binary_units(count: int, text: str) -> None:
    assert console.human_bytes(count) == text


@pytest.mark.parametrize("module", CLIS)
def test_help_answers_without_any_heavy_library(module: str, command: Command) -> None:
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{module} is not in this tree yet")
    code = (
        f"import sys, runpy\nsys.argv = ['medmind', '--help']\nfrom {module} import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code or 0\n"
        f"heavy = [name for name in {HEAVY!r} if sys.modules.get(name)]\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)\n"
    )
    done = command(code)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_ground_imports_only_the_standard_library_typer_and_rich(command: Command) -> None:
    code = (
        "import sys\nimport medmind.artifacts, medmind.base, medmind.hub, medmind.doctor\n"
        f"sys.exit(str(sorted(set(sys.modules) & set({(*HEAVY, 'numpy', 'psutil', 'yaml')!r})) or ''))\n"
    )
    done = command(code)
    assert done.stderr.strip() == ""


def test_a_note_breaks_between_words_on_a_terminal_and_nowhere_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(vars(console), "err", raising=False)
    monkeypatch.setenv("COLUMNS", "12")
    said = "call your local number now\n\nagain"
    console.note(said)
    assert capsys.readouterr().err == f"{said}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    console.note(said)
    assert capsys.readouterr().err == "call your\nlocal number\nnow\n\nagain\n"
