"""One unquantized GGUF -> one quantized GGUF, through llama.cpp's own quantizer. Knows processes; knows no tensor."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from medmind.errors import MedmindError
from medmind_convert.quants import Quant

WORKER = "medmind_convert.quantize_worker"


def quantize(source: Path, target: Path, quant: Quant, threads: int, advance: Callable[..., None]) -> float:
    """Write `target`; it is whole when this returns, and may be half-written when this raises.

    Args:
        source: unquantized GGUF.
        target: file in the same directory.
        quant: file type.
        threads: threads to use.
        advance: is called with 1 and a short status for each tensor.

    Returns:
        Bits per weight of the result, as llama.cpp counts them.

    Raises:
        MedmindError: llama.cpp refused, or its process died.
        KeyboardInterrupt: Ctrl-C; the process has ended.
    """
    if source.parent != target.parent:
        raise ValueError("source and target must lie in one directory")
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", WORKER, source.name, target.name, str(quant.ftype), str(threads)],
        cwd=source.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    reason = noise = ""
    bits = 0.0
    try:
        assert worker.stdout is not None
        for line in worker.stdout:
            try:
                report = json.loads(line)
            except json.JSONDecodeError:  # what C wrote past the log, the last words of an abort among it
                noise = line.strip() or noise
                continue
            if "error" in report:
                reason = str(report["error"])
            elif "bits" in report:
                bits = float(report["bits"])
            else:
                advance(1, f"of {report['of']}")
        code = worker.wait()
    finally:
        worker.kill()  # does nothing to a process that has ended and been waited for
        worker.communicate()
    if code != 0:
        reason = reason or noise or f"its process ended with {code}"
        raise MedmindError(f"llama.cpp could not make {quant.name}: {reason}", _hint(reason))
    return bits


def _hint(reason: str) -> str:
    if "iostream" in reason or "write" in reason:
        return "is the disk full?"
    return ""
