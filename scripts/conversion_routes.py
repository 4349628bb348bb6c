"""From adapter to GGUF, measured: medmind's one pass beside the usual route, each step a process of its own.

    python scripts/conversion_routes.py BASE ADAPTER SCRATCH --out FILE.json [--steps STEP,STEP]

The usual route is PEFT's merge_and_unload, llama.cpp's convert_hf_to_gguf.py and llama-quantize (`make reference`
builds them). Steps, one after another in the order and as often as named: `ours` and `usual`, to --quant;
`quantize`, the usual route again from its last GGUF, and `quantize-four`, to four types; `four` of ours in one pass,
and `one-by-one`; `fit`. SCRATCH needs room for three 16-bit copies of the model; what a step wrote is removed once
nothing after it reads it.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from medmind import processor

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(os.environ.get("MEDMIND_LLAMA_TOOLS") or ROOT / ".venv" / "llama-tools" / "bin")
FOUR = ("q8_0", "q5_k_m", "q4_k_m", "q3_k_m")
MERGE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
AutoTokenizer.from_pretrained(base).save_pretrained(out)
"""


@dataclass(frozen=True)
class Step:
    """What one process cost: seconds and bytes; `anonymous` is sampled, `resident` the kernel's own peak."""

    step: str
    wall: float
    cpu: float
    anonymous: int
    resident: int
    written: int
    result: int


def _status(pid: int) -> dict[str, int]:
    """Bytes of RssAnon and VmHWM of a process; empty once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {
            line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "VmHWM"))
        }
    except (OSError, IndexError, ValueError):
        return {}


def _written(pid: int) -> int:
    """Bytes that a process has handed to write(), pages of a mapped file not among them."""
    try:
        return int(Path(f"/proc/{pid}/io").read_text().split("wchar:")[1].split()[0])
    except (OSError, IndexError):
        return 0


def measure(name: str, command: list[str], result: Path | list[Path], *, libraries: Path | None = None) -> Step:
    """Run a command to its end. Raises CalledProcessError where it fails."""
    environment = dict(os.environ) | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})
    anonymous = resident = written = 0
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    while True:
        written = max(written, _written(process.pid))
        status = _status(process.pid)
        anonymous = max(anonymous, status.get("RssAnon", 0))
        resident = max(resident, status.get("VmHWM", 0))
        pid, code, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    size = sum(_size(path) for path in (result if isinstance(result, list) else [result]))
    resident = max(resident, usage.ru_maxrss * 1024)
    step = Step(name, round(wall, 2), round(usage.ru_utime + usage.ru_stime, 2), anonymous, resident, written, size)
    print(json.dumps(asdict(step)), file=sys.stderr, flush=True)
    return step


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def main() -> None:
    """Measure the steps asked for and write them as one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quant", default="q4_k_m")
    parser.add_argument("--fit", default="4GiB", help="The budget of the step `fit`.")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", default="ours,usual")
    given = parser.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    done: list[Step] = []
    for step in given.steps.split(","):
        done += list(_run(step, given))
        given.out.write_text(json.dumps(_document(given, done), indent=1) + "\n")


def _run(step: str, given: argparse.Namespace) -> list[Step]:
    """The processes of one step."""
    scratch, threads = given.scratch, str(given.threads)
    convert = [sys.executable, "-m", "medmind_convert.cli", "gguf"]
    source = ["--base", str(given.base), "--adapter", str(given.adapter), "--no-imatrix", "--merge-onto", "base"]

    def ours(name: str, types: tuple[str, ...], *more: str, keep: bool = False) -> Step:
        out = scratch / "ours"
        shutil.rmtree(out, ignore_errors=True)
        results = [out / f"model.{kind}.gguf" for kind in types]
        rest = [*source, *more, "--out", str(out), "--name", "model", "--threads", threads]
        done = measure(name, [*convert, *(() if "--fit" in more else types), *rest], results or out)
        if not keep:
            shutil.rmtree(out)
        return done

    quantize, bf16 = TOOLS / "llama-quantize", scratch / "bf16.gguf"
    package = importlib.util.find_spec("llama_cpp")
    assert package is not None and package.origin is not None
    libraries = Path(package.origin).parent / "lib"

    def theirs(kind: str) -> Step:
        out = scratch / "theirs.gguf"
        command = [str(quantize), str(bf16), str(out), kind.upper(), threads]
        return measure(f"llama-quantize {kind}", command, out, libraries=libraries)

    match step:
        case "ours":
            return [ours(f"medmind-convert gguf {given.quant}", (given.quant,))]
        case "usual":
            merged = scratch / "merged"
            merge = measure(
                "PEFT merge", [sys.executable, "-c", MERGE, str(given.base), str(given.adapter), str(merged)], merged
            )
            for file in given.base.glob("tokenizer.model"):
                shutil.copy(file, merged)
            program = [sys.executable, str(TOOLS.parent / "convert_hf_to_gguf.py"), str(merged)]
            converted = measure("convert_hf_to_gguf", [*program, "--outtype", "bf16", "--outfile", str(bf16)], bf16)
            shutil.rmtree(merged)
            return [merge, converted, theirs(given.quant)]
        case "quantize" | "quantize-four":
            return [theirs(kind) for kind in (FOUR if step == "quantize-four" else (given.quant,))]
        case "four":
            return [ours("medmind-convert gguf " + " ".join(FOUR), FOUR)]
        case "one-by-one":
            return [ours(f"medmind-convert gguf {kind}", (kind,)) for kind in FOUR]
        case "fit":
            return [ours(f"medmind-convert gguf --fit {given.fit}", (), "--fit", given.fit)]
    raise SystemExit(f"no step {step!r}")


def _document(given: argparse.Namespace, steps: list[Step]) -> dict[str, object]:
    """The steps with what they were measured on."""
    config = json.loads((given.base / "config.json").read_text())
    return {
        "schema": "medmind-conversion-routes/1",
        "machine": {"processor": processor.name(), "cores": os.cpu_count(), "threads": given.threads},
        "versions": {
            name: importlib.metadata.version(name) for name in ("medmind", "torch", "peft", "llama-cpp-python", "gguf")
        },
        "config": config,
        "fit": given.fit,
        "steps": [asdict(step) for step in steps],
    }


if __name__ == "__main__":
    main()
