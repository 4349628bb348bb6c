"""What is told of each training step: the line in metrics.jsonl. Knows no training."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medmind.artifacts import write_text


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

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "StepMetrics":
        """A line of metrics.jsonl as it was written; what another version wrote besides is left out."""
        known: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
        return cls(**known)


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
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                document = json.loads(line)
                if document["step"] <= step:
                    kept.append(line + "\n")
                    lines.append(document)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    write_text(path, "".join(kept))
    return lines
