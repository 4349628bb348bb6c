"""What a build of llama.cpp gives chat's engine beside another one, in turn: that for AVX-512 beside the one for every
CPU with AVX2, or this environment's beside that of another llama-cpp-python, say without medmind's files.

    python scripts/measure_cpu_library.py FILE.gguf --out FILE.json [--threads 1 2] [--pairs 6] [--beside FOLDER]

Each measurement is a process of its own: a prompt of `PROMPT` tokens, then `ANSWER` tokens, each the median of
`TIMES`; attention and batch are chat's choice. Without `--beside` only where `medmind.llama` takes another build than
the usual one.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gguf

from medmind import gguf_header, llama, processor
from medmind_runtime.engine import attention
from medmind_runtime.engine.engine import Engine, Sampling
from medmind_runtime.engine.loading import KvType

PROMPT, ANSWER, TIMES = 512, 24, 3
KV_CACHE: KvType = "f16"
USUAL = "from medmind import processor; processor.features = frozenset; "
"""Before anything else: of a CPU that tells nothing, the usual build is taken."""


def rates(model: Path, threads: int) -> dict[str, float]:
    """Tokens a second."""
    prompts, answers = [], []
    with Engine.load(
        model, threads=threads, context=PROMPT + 2 * ANSWER, kv_type=KV_CACHE, gpu_layers=0, lookup=False
    ) as engine:
        for turn in range(TIMES):
            list(engine.generate([1, *[5 + turn] * (PROMPT - 1)], sampling=Sampling(), max_tokens=ANSWER))
            prompts.append(engine.timings.prompt_rate)
            answers.append(engine.timings.generation_rate)
    return {"prompt": statistics.median(prompts), "answer": statistics.median(answers)}


def measured(model: Path, threads: int, *, usual: bool, beside: Path | None = None) -> dict[str, float]:
    """`rates` in a process of its own, of the usual build or with the llama_cpp that lies in a folder."""
    code = f"{USUAL if usual else ''}import sys, json, pathlib; sys.path.insert(0, sys.argv[1]); "
    code += "import measure_cpu_library as m; "
    code += "print(json.dumps(m.rates(pathlib.Path(sys.argv[2]), int(sys.argv[3]))))"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(model), str(threads)]
    paths = [str(beside)] if beside else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def tensor_types(model: Path) -> dict[str, int]:
    """How many tensors are of which type: not every file says what it was quantized to."""
    kinds = Counter(tensor.kind for tensor in gguf_header.read(model).tensors)
    return {gguf.GGMLQuantizationType(kind).name: count for kind, count in kinds.most_common()}


def document(model: Path, build: Path | None, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures and their conditions.

    Args:
        model: what was measured.
        build: folder of the build that was taken, with its file `cpu-flags`; None for the usual one.
        runs: pairs.
    """
    needs = (build / "cpu-flags").read_text(encoding="ascii").split() if build else []
    return {
        "schema": "medmind-cpu-library/3",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {"file": model.name, "bytes": model.stat().st_size, "tensors": tensor_types(model)},
        "machine": {
            "processor": processor.name(),
            "flags": sorted(processor.features()),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {name: importlib.metadata.version(name) for name in ("medmind", "llama-cpp-python")},
        "build": {"name": build.name if build else "usual", "needs": needs, "own_products": llama.own_products()},
        "kv_cache": KV_CACHE,
        "prompt_tokens": PROMPT,
        "answer_tokens": ANSWER,
        "tokens_a_second": runs,
    }


def main() -> None:
    """Measure pairs and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="with another package llama_cpp")
    given = parser.parse_args()
    beside: Path | None = given.beside
    best = llama.cpu_library(Path(str(llama.package().__file__)).parent / "lib", processor.features())
    if beside and not (beside / "llama_cpp").is_dir():
        raise SystemExit(f"{beside} holds no package llama_cpp")
    if best is None and not beside:
        raise SystemExit("llama.cpp has no other build for this CPU than the usual one")
    build = best.parent if best else None
    here, there = ("here", "beside") if beside else (build.name if build else "", "usual")
    runs: list[dict[str, Any]] = []
    for threads in given.threads:
        flash = attention.flash(KV_CACHE, threads, on_gpu=False, own=llama.own_attention())
        for turn in range(given.pairs):
            pair = {}
            for name in (there, here) if turn % 2 else (here, there):
                other = name == there
                pair[name] = measured(
                    given.model, threads, usual=other and not beside, beside=beside if other else None
                )
            runs.append({"threads": threads, "flash_attention": flash, **pair})
        for what in ("prompt", "answer"):
            gains = sorted(run[here][what] / run[there][what] for run in runs if run["threads"] == threads)
            print(
                f"{threads} threads, {what}: {statistics.median(gains):.3f} times ({gains[0]:.3f} to {gains[-1]:.3f})"
            )
    given.out.write_text(json.dumps(document(given.model, build, runs), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
