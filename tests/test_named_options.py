"""Options and commands that README, messages, hints and docstrings name: each is one that some command has, and where a
command is named with its options, they are its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import medmind_benchmarks.cli
import medmind_convert.cli
import medmind_runtime.command_line
import medmind_train.cli

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "benchmarks/medmind_benchmarks",
    "convert/medmind_convert",
    "medmind",
    "runtime/medmind_runtime",
    "train/medmind_train",
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
COMMAND = re.compile(r": (medmind-(?:train|convert|chat|bench)) ([a-z][a-z-]*)")
CALL = re.compile(
    r"(medmind-(?:train|convert|chat|bench)|medmind_train\.cli)"
    r"((?: (?!medmind-)[^\s`'\"#|;)—]*[^\s`'\"#|;)—,])+)"
)
"""A command with what follows it up to a mark that ends it."""
APPS: dict[str, Any] = {
    "medmind-train": typer.main.get_command(medmind_train.cli.app),
    "medmind-convert": typer.main.get_command(medmind_convert.cli.app),
    "medmind-chat": typer.main.get_command(medmind_runtime.command_line.app),
    "medmind-bench": typer.main.get_command(medmind_benchmarks.cli.app),
}
OTHERS = {
    # of llama-perplexity
    "benchmarks/medmind_benchmarks/cli.py": {"--kl-divergence", "--kl-divergence-base"},
    "benchmarks/medmind_benchmarks/figures.py": {"--kl-divergence-base"},
    "benchmarks/medmind_benchmarks/quants.py": {"--kl-divergence-base"},
    "benchmarks/medmind_benchmarks/reference_rows.py": {"--kl-divergence-base"},
    "benchmarks/medmind_benchmarks/row_codec.py": {"--kl-divergence-base"},
    "benchmarks/medmind_benchmarks/sources.py": {"--kl-divergence-base"},
    # of llama-gguf-split
    "convert/medmind_convert/companions.py": {"--merge"},
    # of pip
    "convert/medmind_convert/ggml.py": {"--force-reinstall", "--no-binary"},
    "convert/medmind_convert/info.py": {"--upgrade"},
    "medmind/digests.py": {"--force-reinstall"},
    "medmind/doctor/acceleration.py": {"--force-reinstall", "--index-url"},
    "medmind/doctor/installing.py": {"--force-reinstall", "--no-binary", "--no-cache-dir", "--no-deps"},
    "runtime/medmind_runtime/bundle/wheels.py": {
        *("--disable-pip-version-check", "--dry-run", "--find-links", "--force-reinstall", "--ignore-installed"),
        "--no-index",
    },
    # of nvidia-smi, xcode-select, a C++ compiler, torchrun, tensorboard
    "medmind/doctor/host.py": {"--install"},
    "medmind/doctor/machine.py": {"--format", "--query-gpu", "--version"},
    "train/medmind_train/launch.py": {"--nnodes", "--nproc-per-node"},
    "train/medmind_train/process_group.py": {"--nproc-per-node"},
    "train/medmind_train/qlora_cli.py": {"--nproc-per-node"},
    "train/medmind_train/step/meter.py": {"--format", "--query-gpu"},
    "train/medmind_train/trackers.py": {"--logdir"},
    # of pip, xcode-select, torchrun, mypy
    "README.md": {"--index-url", "--install", "--nproc-per-node", "--strict"},
    # of a chat's own /save; the beginning of what turns a flag off
    "runtime/medmind_runtime/terminal/commands.py": {"--state"},
    "runtime/medmind_runtime/plain_call.py": {"--no"},
    "train/medmind_train/config.py": {"--no"},
}
"""Options of no command of medmind's, by the file that names them."""


def options(command: Any) -> Iterator[str]:
    """Every option of a command and of the commands under it."""
    yield "--help"
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


def named_command(program: str, words: list[str]) -> Any:
    """What a program does with such words: a command, one below it, or the program's default."""
    command = APPS[program.replace("medmind_train.cli", "medmind-train")]
    below = command
    for word in words:
        below = getattr(below, "commands", {}).get(word)
        if below is None:
            break
        command = below
    return command.commands["chat"] if command is APPS["medmind-chat"] else command


@pytest.fixture(scope="module")
def named() -> list[tuple[str, str]]:
    """Every line of the sources and of README, comments too, with its file."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return [
        (file.relative_to(ROOT).as_posix(), line)
        for file in (ROOT / "README.md", *files)
        for line in file.read_text(encoding="utf-8").split("\n")
    ]


def test_every_option_that_is_named_exists(named: list[tuple[str, str]]) -> None:
    known = {option for app in APPS.values() for option in options(app)}
    found = [(file, option) for file, line in named for option in OPTION.findall(line)]
    assert len(found) > 100
    assert not [(file, option) for file, option in found if option not in known | OTHERS.get(file, set())]
    foreign = {(file, option) for file, options in OTHERS.items() for option in options}
    assert not foreign - set(found)


def test_every_command_that_is_named_exists(named: list[tuple[str, str]]) -> None:
    found = [(file, *match) for file, line in named for match in COMMAND.findall(line)]
    assert len(found) > 20
    assert not [one for one in found if one[2] not in APPS[one[1]].commands]


def test_a_command_that_is_named_with_options_has_them(named: list[tuple[str, str]]) -> None:
    found = [
        (file, program + rest, option)
        for file, line in named
        for program, rest in CALL.findall(line)
        for option in OPTION.findall(rest)
        if option not in options(named_command(program, rest.split()))
    ]
    assert not found
    assert sum(bool(OPTION.search(rest)) for _, line in named for _, rest in CALL.findall(line)) > 20
