"""What is told of each training step: the line in metrics.jsonl, and the progress a person sees. Knows no training."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmind import console
from medmind.artifacts import write_text
from medmind.console import human_bytes

_NOTE_SECONDS = 10.0
"""How often progress is told where there is no terminal to draw it on."""


@dataclass(frozen=True)
class StepMetrics:
    """One line of metrics.jsonl.

    Loss in nats per supervised token; `padding` is the share of padding in what went through the model; memory in
    bytes; seconds of training so far, without evaluation. Validation loss in nats per answer token ± standard error,
    after the steps that were evaluated.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float | None
    examples: int
    tokens: int
    supervised_tokens: int
    padding: float
    tokens_per_s: float
    seconds: float
    memory: int
    validation_loss: float | None = None
    validation_error: float | None = None


@contextmanager
def appending(path: Path) -> Iterator[Callable[[StepMetrics], None]]:
    """Open metrics.jsonl; what is yielded writes one line at once, values that are None left out."""
    with path.open("a", encoding="utf-8", newline="\n") as file:

        def log(metrics: StepMetrics) -> None:
            line = {name: value for name, value in asdict(metrics).items() if value is not None}
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()

        yield log


def forget_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Steps after a checkpoint are done again: their lines, and one cut off by a kill, must not stay.

    Returns:
        The lines that stay.
    """
    kept, lines = [], []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                document = json.loads(line)
                if document["step"] <= step:
                    kept.append(line + "\n")
                    lines.append(document)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    write_text(path, "".join(kept))
    return lines


@contextmanager
def display(first: int, total: int) -> Iterator[Callable[[StepMetrics], None]]:
    """Progress from step `first` to `total`: a bar on a terminal, else a plain line on stderr now and then."""
    told = began = time.monotonic()
    with console.progress("training", total - first, "steps") as advance:

        def show(metrics: StepMetrics) -> None:
            nonlocal told
            text = (
                f"loss {metrics.loss:.3f} · {metrics.tokens_per_s:,.0f} tokens/s · {human_bytes(metrics.memory)} peak"
            )
            advance(1, text)
            now = time.monotonic()
            ends = metrics.step in (first + 1, total)
            if not console.err.is_terminal and (ends or now - told >= _NOTE_SECONDS):
                told = now
                left = round((now - began) / (metrics.step - first) * (total - metrics.step))
                console.note(f"step {metrics.step}/{total} · {text} · {left // 60}:{left % 60:02} left")

        yield show
