"""Generation against llama-bench's tg128 on the same file and threads, in alternating pairs.

Needs a machine that does nothing else: other programs move single runs by far more than three percent.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_tools import run_tool
from signed_ranks import located

from medmind_runtime.engine.engine import Engine, Sampling

pytestmark = pytest.mark.reference
TOKENS = 128
PAIRS = int(os.environ.get("MEDMIND_BENCH_PAIRS", "40"))
TOLERANCE = 0.03


def theirs(model: Path) -> float:
    """Tokens a second."""
    how = ("-p", "0", "-n", str(TOKENS), "-t", "1")
    ended = run_tool("llama-bench", "-m", model, *how, "-r", "1", "-o", "json")
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
    model = Path(named) if named else make_model(width=1024, layers=6, head=128)
    pairs = []
    with Engine.load(model, threads=1) as engine:
        ours(engine)
        for turn in range(PAIRS):
            first = theirs(model) if turn % 2 else None
            own = ours(engine)
            pairs.append((own, theirs(model) if first is None else first))
    middle, low, high = map(math.exp, located([math.log(own / other) for own, other in pairs]))
    rounded = [[round(own, 2), round(other, 2)] for own, other in pairs]
    print(json.dumps({"tokens a second, medmind's and llama-bench's": rounded}))
    print(f"ours / theirs: {middle:.4f}, each bound one-sided 95 %: {low:.4f} to {high:.4f}")
    assert low >= 1 - TOLERANCE
    assert high - low < 2 * TOLERANCE, "the machine is too busy to tell"
