"""Token ids as flat batches of documents, none of which sees another. Knows ids and borders; no model, no text."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Ids = NDArray[np.generic]

IGNORED = -100
"""Target of a position that predicts nothing: behind it the row ends, or another document begins."""
_BORDERS_AT_ONCE = 512
"""The borders of a batch come in multiples of so many, so that few shapes are met; the documents behind are empty."""


@dataclass(frozen=True)
class Windows:
    """Tokens laid end to end.

    Attributes:
        ids: `[tokens]` int64.
        targets: `[tokens]` int64, the id that each position predicts, or `IGNORED`.
        positions: `[tokens]` int64, counted from 0 in every document.
        bounds: `[documents + 1]` int32, ascending from 0 to the number of tokens; documents may be empty.
        predicted: targets that count.
        visible: how many tokens a position sees on average, itself counted.
    """

    ids: Any
    targets: Any
    positions: Any
    bounds: Any
    predicted: int
    visible: float

    def to(self, device: "torch.device") -> "Windows":
        """The arrays as tensors on `device`; a copy to a card is not waited for."""
        import torch

        def moved(array: Any) -> torch.Tensor:
            tensor = torch.from_numpy(array)
            return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

        ids, targets, positions, bounds = map(moved, (self.ids, self.targets, self.positions, self.bounds))
        return Windows(ids, targets, positions, bounds, self.predicted, self.visible)


def flat(rows: "Ids", bos: int) -> Windows:
    """Rows of shape (rows, tokens + 1) as one batch: each token of a row predicts the next one.

    A document begins at every `bos` and at the start of every row. Nothing predicts a `bos`: where one follows, the
    document before it has ended.
    """
    import numpy as np

    ids = rows[:, :-1].astype(np.int64).reshape(-1)
    targets = rows[:, 1:].astype(np.int64).reshape(-1)
    begins = ids == bos
    begins[:: rows.shape[1] - 1] = True
    return _windows(ids, np.where(targets == bos, IGNORED, targets), np.flatnonzero(begins))


def _windows(ids: Any, targets: Any, starts: Any) -> Windows:
    import numpy as np

    count = len(ids)
    lengths = np.diff(np.append(starts, count))
    positions = np.arange(count) - np.repeat(starts, lengths)
    places = -(-(len(starts) + 1) // _BORDERS_AT_ONCE) * _BORDERS_AT_ONCE
    bounds = np.full(places, count, dtype=np.int32)
    bounds[: len(starts)] = starts
    return Windows(ids, targets, positions, bounds, int((targets != IGNORED).sum()), float(positions.mean()) + 1)


def training_windows(ids: "Ids", *, context: int, batch: int, seed: int, bos: int, start: int) -> Iterator[Windows]:
    """The batches of a training from step `start` on, without end, each of `batch` windows of `context` tokens.

    Each pass cuts the corpus at another offset and takes its windows in another order; both follow from the seed and
    the pass, so that step n is the same batch in a resumed run.
    """
    import numpy as np

    span = context + 1
    per_pass = max(1, (len(ids) - span) // context)

    def order(index: int) -> "NDArray[np.int64]":
        generator = np.random.default_rng([seed, index])
        slack = len(ids) - span - (per_pass - 1) * context
        offset = int(generator.integers(0, min(context, slack + 1)))
        return generator.permutation(per_pass) * context + offset

    current, starts = -1, np.empty(0, dtype=np.int64)
    position = start * batch
    while True:
        rows = []
        for number in range(position, position + batch):
            index, place = divmod(number, per_pass)
            if index != current:
                current, starts = index, order(index)
            rows.append(ids[starts[place] : starts[place] + span])
        position += batch
        yield flat(np.stack(rows), bos)


def document_windows(ids: "Ids", *, context: int, tokens: int, bos: int) -> Iterator[tuple[Windows, Any]]:
    """Every document of `ids` from its own beginning, in flat batches of `tokens` (a multiple of `context`).

    A document longer than `context` is cut into pieces of so many tokens, each of which sees itself alone. What a batch
    has left over at its end is filled with documents that predict nothing.

    Yields:
        A batch, and for each of its positions (shape (tokens,), int64) the number of the document whose next token it
        predicts, -1 for none.
    """
    import numpy as np

    begins = np.flatnonzero(np.asarray(ids) == bos)
    ends = np.append(begins[1:], len(ids))
    pieces = [
        (number, start, min(start + context, end - 1))  # the last token predicts nothing
        for number, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True))
        for start in range(begin, end - 1, context)
    ]
    for group in _filled(pieces, tokens):
        parts, targets, owners, starts, used = [], [], [], [], 0
        for number, start, end in group:
            parts.append(np.asarray(ids[start:end]).astype(np.int64))
            targets.append(np.asarray(ids[start + 1 : end + 1]).astype(np.int64))
            owners.append(np.full(end - start, number))
            starts.append(used)
            used += end - start
        empty = tokens - used
        starts += range(used, tokens, context)
        yield (
            _windows(
                np.concatenate([*parts, np.full(empty, bos)]),
                np.concatenate([*targets, np.full(empty, IGNORED)]),
                np.array(starts),
            ),
            np.concatenate([*owners, np.full(empty, -1)]),
        )


def _filled(pieces: Iterable[tuple[int, int, int]], tokens: int) -> Iterator[list[tuple[int, int, int]]]:
    """Pieces in their order, as many together as `tokens` hold."""
    group: list[tuple[int, int, int]] = []
    used = 0
    for piece in pieces:
        size = piece[2] - piece[1]
        if used + size > tokens:
            yield group
            group, used = [], 0
        group.append(piece)
        used += size
    if group:
        yield group
