"""The cell that holds one GGUF against the trained model: its log-probabilities lie in a file that training wrote.

Knows the mapped file and where an example's rows are in it; scoring and comparing are in `score`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from medmind.errors import MedmindError
from medmind_benchmarks import score, texts
from medmind_benchmarks.cell import Advance
from medmind_benchmarks.examples import Example
from medmind_benchmarks.opening import opened

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Request:
    """What to score.

    Attributes:
        model: the GGUF.
        text: file of `texts`.
        rows: .npy of natural-log probabilities, float32, shape (tokens scored, vocabulary), in the text's order.
        threads: compute threads.
    """

    kind: Literal["against-trained"]
    model: str
    text: str
    rows: str
    threads: int


def measure(request: Request, advance: Advance) -> score.Result:
    """Score the text; `advance` is called after every group.

    Raises:
        MedmindError: a model that cannot be loaded, has another vocabulary or gives no numbers; rows that do not fit
            the text.
    """
    text = texts.read(Path(request.text))
    try:
        rows = np.load(request.rows, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MedmindError(f"the trained model's log-probabilities cannot be read: {error}") from error
    with opened(Path(request.model), context=text.context, threads=request.threads) as engine:
        if rows.ndim != 2 or rows.shape[0] != sum(text.tokens):
            raise MedmindError(f"the log-probabilities have the shape {rows.shape}, for {sum(text.tokens)} tokens")
        if rows.shape[1] != len(engine.vocabulary):
            raise MedmindError(
                f"the file has {len(engine.vocabulary)} tokens and the trained model {rows.shape[1]}",
                "convert the run again",
            )
        return score.compare(text, engine, _Mapped(rows), "direct", advance)


class _Mapped:
    """The rows of one example after another."""

    def __init__(self, rows: "NDArray[np.float32]") -> None:
        self._rows = rows
        self._at = 0

    def __call__(self, example: Example) -> "Iterator[NDArray[np.float64]]":
        for count in score.row_counts(example, self._rows.shape[1]):
            part = self._rows[self._at : self._at + count]
            self._at += count
            yield np.asarray(part, dtype=np.float64)
