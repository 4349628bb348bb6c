"""Options and commands that messages, hints and docstrings name: each is one that some command has."""

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
    "runtime/medmind_runtime",
    "train/medmind_train",
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
COMMAND = re.compile(r": (medmind-(?:train|convert|chat|bench)) ([a-z][a-z-]*)")
APPS: dict[str, Any] = {
    "medmind-train": typer.main.get_command(medmind_train.cli.app),
    "medmind-convert": typer.main.get_command(medmind_convert.cli.app),
    "medmind-chat": typer.main.get_command(medmind_runtime.command_line.app),
    "medmind-bench": typer.main.get_command(medmind_benchmarks.cli.app),
}
OTHERS = {
    # of llama-gguf-split, llama-perplexity, pip, torchrun, nvidia-smi, tensorboard, xcode-select, a C++ compiler
    "--merge",
    "--kl-divergence",
    "--kl-divergence-base",
    "--disable-pip-version-check",
    "--dry-run",
    "--find-links",
    "--force-reinstall",
    "--ignore-installed",
    "--index-url",
    "--no-binary",
    "--no-cache-dir",
    "--no-deps",
    "--no-index",
    "--upgrade",
    "--nnodes",
    "--nproc-per-node",
    "--query-gpu",
    "--format",
    "--logdir",
    "--install",
    "--version",
    # of a chat's own /save; and the beginning of what turns a flag off
    "--state",
    "--no",
}


def options(command: Any) -> Iterator[str]:
    """Every option of a command and of the commands under it."""
    yield "--help"
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


@pytest.fixture(scope="module")
def named() -> list[tuple[str, str]]:
    """Every line of the sources, comments too, with its place."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return [
        (f"{file.relative_to(ROOT)}:{number}", line)
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1)
    ]


def test_every_option_that_is_named_exists(named: list[tuple[str, str]]) -> None:
    known = {option for app in APPS.values() for option in options(app)} | OTHERS
    found = [(place, option) for place, text in named for option in OPTION.findall(text)]
    assert len(found) > 100
    assert not [one for one in found if one[1] not in known]


def test_every_command_that_is_named_exists(named: list[tuple[str, str]]) -> None:
    found = [(place, *match) for place, text in named for match in COMMAND.findall(text)]
    assert len(found) > 20
    assert not [one for one in found if one[2] not in APPS[one[1]].commands]
