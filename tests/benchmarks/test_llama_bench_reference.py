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

from medmind_benchmarks import pace
from medmind_benchmarks.process import run_cell

sys.path.insert(0, str(Path(__file__).parents[1]))
from llama_tools import run_tool

pytestmark = pytest.mark.reference
PAIRS, REPEATS = int(os.environ.get("MEDMIND_BENCH_PAIRS", "40")), 5
_ONE_SIDED_95 = 1.645


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


def located(values: list[float]) -> tuple[float, float, float]:
    """The Hodges-Lehmann estimate of the middle and its bounds, each one-sided 95 %, by Wilcoxon's signed ranks: single
    runs that another program disturbed move it little.
    """
    n = len(values)
    walsh = sorted((one + other) / 2 for place, one in enumerate(values) for other in values[place:])
    off = n * (n + 1) / 4 - _ONE_SIDED_95 * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    place = max(0, math.floor(off))
    return statistics.median(walsh), walsh[place], walsh[-1 - place]


def test_the_middle_of_what_is_known_is_found_with_its_bounds() -> None:
    middle, low, high = located([-0.01, 0.0, 0.01] * 13 + [5.0])
    assert abs(middle) < 0.002
    assert -0.01 <= low <= middle <= high <= 0.01
    assert high - low < 0.01


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
