"""`medmind-bench quants` and its plan, small enough for a test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_command import medmind_bench

from medmind_benchmarks import plan, sources
from medmind_benchmarks.config import QuantsConfig

SHORT = ["--threads", "1", "--rounds", "1", "--repeats", "1", "--contexts", "128", "--load-modes", "auto"]
SHORT += ["--prompt-tokens", "16", "--gen-tokens", "8", "--chunk", "32", "--chunks", "4"]
QUICK = [*SHORT, "--measure", "answers", "--rows", "5"]


def bench(*arguments: str | Path, cwd: Path | None = None, pages: bool = False) -> "subprocess.CompletedProcess[str]":
    return medmind_bench("quants", *arguments, cwd=cwd, pages=pages)


def refused(result: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert result.stdout == ""


@contextmanager
def silent(description: str, total: float, unit: str) -> Iterator[object]:
    yield lambda amount=1, status="": None


def planned(folder: Path, **settings: Any) -> plan.Plan:
    config = QuantsConfig(
        measure=("answers", "speed"),
        cell_memory=2**30,
        rows=3,
        rounds=2,
        repeats=1,
        threads=1,
        prompt_tokens=8,
        generated_tokens=4,
    )
    return plan.make(sources.find([folder], None, None), replace(config, **settings))
