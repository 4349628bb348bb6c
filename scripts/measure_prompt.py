"""How long after Enter `medmind-chat` takes a question, beside the time in which Python does nothing, in turn.

    python scripts/measure_prompt.py FILE.gguf --out FILE.json [--runs 20]

Each run is a process in a pseudo-terminal of its own, ended once the prompt is there; a first one of each kind, which
may have to read from the disk, is not counted. Linux and macOS.
"""

import argparse
import importlib.metadata
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from medmind import processor

PROMPT = b"> "
EDITING = b"\x1b[?2004h"
"""What the line editor sends before it draws its prompt: bracketed paste, on."""
SECONDS = 60.0


def nothing() -> float:
    """Seconds of `python -c pass`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - began


def prompt(model: Path) -> float:
    """Seconds to a prompt that takes keys. Raises SystemExit where none appears."""
    command = str(Path(sys.executable).with_name("medmind-chat"))
    began = time.perf_counter()
    process, terminal = pty.fork()
    if not process:
        os.environ.update(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1", PYTHONDONTWRITEBYTECODE="")
        os.execv(command, [command, str(model)])
    seen = b""
    try:
        while PROMPT not in seen.partition(EDITING)[2]:
            left = began + SECONDS - time.perf_counter()
            if not select.select([terminal], [], [], max(0.0, left))[0]:
                raise SystemExit(f"no prompt in {SECONDS:.0f} s")
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                raise SystemExit(f"medmind-chat ended: {seen.decode(errors='replace')}") from None
        return time.perf_counter() - began
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


def main() -> None:
    """Measure both in turn and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    pairs = [(prompt(given.model), nothing()) for _ in range(given.runs + 1)][1:]
    document = {
        "schema": "medmind-prompt/1",
        "model": given.model.name,
        "machine": {
            "processor": processor.name(),
            "cores": os.cpu_count(),
        },
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            **{name: importlib.metadata.version(name) for name in ("medmind", "prompt_toolkit", "rich")},
        },
        "runs": [{"prompt_seconds": ours, "python_seconds": bare} for ours, bare in pairs],
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
