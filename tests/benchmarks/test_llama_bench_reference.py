"""Speed against llama-bench on the same library: pairs in turn, and a bound on how far the two may be apart.

Needs a machine that does nothing else: other programs move single runs by far more than two percent.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from llama_tools import run_tool
from signed_ranks import located

from medmind_benchmarks import pace
from medmind_benchmarks.process import run_cell

pytestmark = pytest.mark.reference
PAIRS, REPEATS = int(os.environ.get("MEDMIND_BENCH_PAIRS", "40")), 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base in 4 bits: large enough that a token takes far longer than a call from Python."""
    folder = tmp_path_factory.mktemp("bench")
    command = "from medmind_convert.cli import main; main()"
    arguments = ["gguf", "q4_k_m", "medmind-base", "--out", str(folder), "--name", "m"]
    subprocess.run([sys.executable, "-c", command, *arguments], check=True, capture_output=True)
    return folder / "m.q4_k_m.gguf"


def by_tool(model: Path) -> tuple[float, float]:
    done = run_tool("llama-bench", "-m", model, "-t", "1", "-p", "512", "-n", "128", "-r", str(REPEATS), "-o", "json")
    prompt, generation = json.loads(done.stdout)
    return statistics.median(prompt["samples_ts"]), statistics.median(generation["samples_ts"])


def by_us(model: Path, turn: int) -> tuple[float, float]:
    request = pace.Request("speed", str(model), "f16", 1, 512, 128, REPEATS, turn)
    found = run_cell(request, pace.Result, advance=lambda: None)
    return statistics.median(found.prompt), statistics.median(found.generation)


def test_speeds_are_within_two_percent_of_llama_bench(model: Path) -> None:
    ratios: tuple[list[float], list[float]] = ([], [])
    for turn in range(PAIRS):
        if turn % 2:
            ours, theirs = by_us(model, turn), by_tool(model)
        else:
            theirs, ours = by_tool(model), by_us(model, turn)
        for place in range(2):
            ratios[place].append(math.log(ours[place] / theirs[place]))
    found = {name: located(values) for name, values in zip(("pp512", "tg128"), ratios, strict=True)}
    said = {name: f"{middle:+.2%} ({low:+.2%} to {high:+.2%})" for name, (middle, low, high) in found.items()}
    print(f"ours against llama-bench, {PAIRS} pairs, one-sided 95 %: {said}")
    for _, low, high in found.values():
        assert low > -0.02, said
        assert high < 0.02, said
