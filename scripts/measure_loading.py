"""Load modes side by side, and a conversation that is resumed beside a cold one: seconds and resident memory.

    python scripts/measure_loading.py FILE.gguf --out FILE.json [--threads N] [--rounds 3]

Each figure is of a process of its own, the kinds in turn; the conversation is of 1,025 tokens with 16 new ones.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medmind import llama, processor
from medmind.memory import resident
from medmind_runtime.engine.engine import Engine
from medmind_runtime.engine.loading import LoadMode
from medmind_runtime.engine.sampling import Sampling

MODES: tuple[LoadMode, ...] = ("auto", "mmap", "copy")
CONTEXT, SAID, NEW, GENERATED = 2048, 1024, 16, 33
_PRIME, _SPECIAL = 7919, 1000
"""Tokens are drawn from the vocabulary by steps of a prime, past the first thousand: control tokens and bytes."""


def one(model: Path, mode: LoadMode, what: str, threads: int, state: Path) -> dict[str, object]:
    """Load, and speak: `short` a few tokens; `keep`, `cold`, `resumed` a conversation, kept, anew, from its state."""
    llama.load()
    library = resident().now
    began = time.perf_counter()
    with Engine.load(model, context=CONTEXT, threads=threads, kv_type="f16", load_mode=mode) as engine:
        found: dict[str, object] = {"what": what, "load_mode": mode, "load_seconds": time.perf_counter() - began}
        ordinary = len(engine.vocabulary) - _SPECIAL
        tokens = [_SPECIAL + _PRIME * place % ordinary for place in range(NEW if what == "short" else SAID)]
        if what == "resumed":
            began = time.perf_counter()
            found["kept_tokens"] = engine.load_state(state)
            found["state_seconds"] = time.perf_counter() - began
            found["state_bytes"] = state.stat().st_size
        if what in ("cold", "resumed"):
            tokens += [_SPECIAL + place for place in range(NEW)]
        times = [time.perf_counter()]
        count = GENERATED if what == "short" else 2
        times += [
            time.perf_counter() for _ in engine.generate(tokens, sampling=Sampling(temperature=0), max_tokens=count)
        ]
        found["first_token_seconds"] = times[1] - times[0]
        found["token_seconds"] = (times[-1] - times[1]) / max(1, len(times) - 2)
        if what == "keep":
            engine.save_state(state)
        end, memory = resident(), engine.memory
    return found | {
        "library": library,
        "peak": end.peak,
        "anonymous": end.anonymous,
        "file_backed": end.file_backed,
        "file": model.stat().st_size,
        "kv_cache": memory.kv_cache,
        "compute": memory.compute,
        "repacked": memory.repacked,
    }


def main() -> None:
    """Measure all and write them as one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("MODE", "WHAT", "STATE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        mode, what, state = given.one
        sys.stdout.write(json.dumps(one(given.model, mode, what, given.threads, Path(state))))
        return
    if given.out is None:
        parser.error("--out FILE.json says where the figures go")
    kinds = [(mode, "short") for turn in range(given.rounds) for mode in MODES[turn % 3 :] + MODES[: turn % 3]]
    kinds += [("auto", "keep"), *[("auto", what) for _ in range(given.rounds) for what in ("cold", "resumed")]]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for mode, what in kinds:
            command = [sys.executable, __file__, str(given.model), "--threads", str(given.threads), "--one", mode, what]
            done = subprocess.run([*command, str(Path(folder) / "talk.state")], check=True, stdout=subprocess.PIPE)
            runs.append(json.loads(done.stdout))
            sys.stderr.write(f"{runs[-1]}\n")
    document = {
        "schema": "medmind-loading/1",
        "model": given.model.name,
        "machine": {"processor": processor.name(), "cores": os.cpu_count(), "threads": given.threads},
        "versions": {name: importlib.metadata.version(name) for name in ("medmind", "llama-cpp-python")},
        "context": CONTEXT,
        "runs": runs,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
