"""Generation against llama-bench's tg128 on the same file and threads, in alternating pairs."""

import json
import math
import os
import shutil
import statistics
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from medmind_runtime.engine import Engine, Sampling

pytestmark = pytest.mark.reference
TOKENS = 128
PAIRS = int(os.environ.get("MEDMIND_BENCH_PAIRS", "10"))
TOLERANCE = 0.03


def llama_bench() -> list[str]:
    folders = [os.environ.get("MEDMIND_LLAMA_TOOLS", ""), ".venv/llama-tools/bin"]
    program = shutil.which("llama-bench", path=os.pathsep.join(filter(None, folders)))
    assert program, "llama-bench is not there; build it: make reference"
    return [program]


def theirs(model: Path) -> float:
    """Tokens a second."""
    library = Path(sysconfig.get_path("purelib")) / "llama_cpp" / "lib"
    ended = subprocess.run(
        [*llama_bench(), "-m", str(model), "-p", "0", "-n", str(TOKENS), "-t", "1", "-r", "1", "-o", "json"],
        capture_output=True,
        check=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(library)},
    )
    return float(json.loads(ended.stdout)[0]["avg_ts"])


def ours(engine: Engine) -> float:
    """Tokens a second, from an empty cache as theirs."""
    engine.log_probs([1, 3, 4], 1)
    list(engine.generate([1], sampling=Sampling(), max_tokens=TOKENS + 1))
    assert engine.timings.generated_tokens > TOKENS // 2  # a trained model may end
    return engine.timings.generation_rate


def test_generation_is_as_fast_as_llama_bench(make_model: Callable[..., Path]) -> None:
    """MEDMIND_BENCH_MODEL names another file; the one made here is large enough that a token takes milliseconds."""
    named = os.environ.get("MEDMIND_BENCH_MODEL")
    model = Path(named) if named else make_model(width=1024, layers=6)
    logs = []
    with Engine.load(model, threads=1) as engine:
        ours(engine)
        for pair in range(PAIRS):
            first, second = (theirs(model), ours(engine)) if pair % 2 else (ours(engine), theirs(model))
            own, other = (second, first) if pair % 2 else (first, second)
            logs.append(math.log(own / other))
    mean, error = statistics.fmean(logs), statistics.stdev(logs) / len(logs) ** 0.5
    low, high = math.exp(mean - 2 * error), math.exp(mean + 2 * error)
    print(f"ours / theirs: {math.exp(mean):.4f}, 95 % {low:.4f} to {high:.4f}")
    assert high - low < 2 * TOLERANCE, "the machine is too busy to tell"
    assert high >= 1 - TOLERANCE
