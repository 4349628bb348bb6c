"""Questions put to libraries, drivers and the hub, each in a process of its own with a time limit.

A probe prints one JSON object a line and flushes it, so that what it learnt before a crash is kept. Judges nothing.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TRAINING = """
import json
def tell(**found):
    print(json.dumps(found), flush=True)
import torch
tell(torch=torch.__version__, cuda=torch.version.cuda, hip=getattr(torch.version, "hip", None))
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cards = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            cards.append({"name": card.name, "memory": card.total_memory, "capability": [card.major, card.minor]})
        torch.zeros(8, device="cuda").sum().item()
tell(cards=cards, warnings=[str(w.message).split("(Triggered")[0].strip() for w in caught])
try:
    import triton
    tell(triton=triton.__version__)
except ImportError:
    tell(triton=None)
import bitsandbytes as bnb
from bitsandbytes import functional
device = "cuda" if cards else "cpu"
values = torch.linspace(-1, 1, 4096, device=device).reshape(64, 64)
packed, state = functional.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=True)
error = (functional.dequantize_4bit(packed, state) - values).abs().max().item()
tell(bitsandbytes=bnb.__version__, bytes=packed.numel() * packed.element_size(), error=error, device=device)
"""
"""torch, its CUDA cards, Triton, and an NF4 round trip of bitsandbytes; in this order, as the later may crash."""

LLAMA = """
import json
from medmind import llama
llama.take_cpu_library()
import llama_cpp
print(json.dumps({"llama_cpp": llama_cpp.__version__}), flush=True)
llama_cpp.llama_backend_init()
print(json.dumps({
    "system": llama_cpp.llama_print_system_info().decode("utf-8", "replace"),
    "offload": bool(llama_cpp.llama_supports_gpu_offload()),
    "own": llama.own_attention() and llama.own_products(),
}), flush=True)
"""
"""llama-cpp-python: version, the features it was compiled for, GPU offload, medmind's own kernels."""

HUB = """
import json, os, sys, urllib.error, urllib.request
endpoint, token = sys.argv[1], sys.stdin.read().strip()
def ask(path, **headers):
    request = urllib.request.Request(endpoint + path, headers={"User-Agent": "medmind-doctor"})
    for key, value in headers.items():
        request.add_unredirected_header(key, value)  # a token must not follow a redirect to another host
    try:
        with urllib.request.urlopen(request, timeout=4) as answer:
            return answer.status, answer.read(1 << 20)
    except urllib.error.HTTPError as error:
        return error.code, b""
try:
    status, body = ask("/api/models?limit=1")
    print(json.dumps({"status": status, "hub": status != 200 or body[:1] == b"["}), flush=True)
    if token:
        status, body = ask("/api/whoami-v2", Authorization="Bearer " + token)
        name = json.loads(body).get("name") if status == 200 else None
        print(json.dumps({"token_status": status, "user": name}), flush=True)
except (OSError, ValueError) as error:
    print(json.dumps({"unreachable": str(getattr(error, "reason", error))}), flush=True)
"""
"""Whether the endpoint answers, and whose the token on stdin is."""


@dataclass(frozen=True)
class Answer:
    """What a probe told before it ended.

    Attributes:
        facts: the JSON objects it printed, merged.
        failure: why it did not come to its end, one line; empty when it did.
        missing: the module that is not installed, when that was the failure.
    """

    facts: Mapping[str, Any]
    failure: str = ""
    missing: str = ""


def ask_python(code: str, *arguments: str, limit: float, given: str = "") -> Answer:
    """Run `code` in this interpreter's environment for at most `limit` seconds, `given` on its stdin."""
    return ask([sys.executable, "-c", code, *arguments], limit=limit, given=given)


def ask(command: Sequence[str], *, limit: float, given: str = "") -> Answer:
    """Run a command and take in the JSON lines of its stdout."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        told = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
        return Answer(_facts(told), f"no answer within {limit:.0f} seconds")
    except OSError as error:
        return Answer({}, f"{command[0]}: {error.strerror or error}")
    return Answer(_facts(done.stdout), _failure(done.returncode, done.stderr), _missing(done.stderr))


def _facts(output: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                facts |= json.loads(line)
            except json.JSONDecodeError:  # a library's own words, or a line that a crash cut off
                continue
    return facts


def _failure(code: int, stderr: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        try:
            return f"crashed with {signal.Signals(-code).name}"
        except ValueError:
            return f"crashed with signal {-code}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with code {code}"


def _missing(stderr: str) -> str:
    last = stderr.rstrip().rpartition("\n")[2]
    return last.partition("No module named '")[2].rstrip("'") if last.startswith("ModuleNotFoundError") else ""
