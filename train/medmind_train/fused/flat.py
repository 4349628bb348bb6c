"""A batch as the fused step reads it: flat arrays on the host, documents by their bounds. Knows batches; no device."""

from copy import copy

import numpy as np

from medmind_train.batches import Batch
from medmind_train.fused.lifetimes import CHUNK


class Flat:
    """A batch on the host as flat arrays.

    Attributes:
        ids, places: `[tokens]` int64, token ids and places in their documents.
        bounds: `[documents + 1]` int32; `documents` is a power of two, the last ones may be empty.
        rows, targets: `[n]` int64, n a multiple of `CHUNK`, as `head.Targets` has them; `count` of them count.
        longest: tokens of a row.
    """

    def __init__(self, batch: Batch) -> None:
        ids, supervised = batch.ids.cpu().numpy(), batch.supervised.cpu().numpy()
        self.ids = ids.reshape(-1)
        self.places = batch.positions.cpu().numpy().reshape(-1)
        tokens, self.longest = len(self.ids), ids.shape[1]
        starts = np.flatnonzero(self.places == 0)
        self.documents = 1 << max(len(starts) - 1, 0).bit_length()
        self.bounds = np.full(self.documents + 1, tokens, np.int32)
        self.bounds[: len(starts)] = starts
        predicted = np.flatnonzero(supervised.reshape(-1) & (np.arange(tokens) % self.longest > 0))
        self.count = len(predicted)
        self.rows = predicted - 1
        self.targets = self.ids[predicted]
        self._pad(-(-max(self.count, 1) // CHUNK) * CHUNK)

    def with_places(self, size: int) -> "Flat":
        """The same with `size` targets, most of them empty."""
        other = copy(self)
        other._pad(size)
        return other

    def _pad(self, size: int) -> None:
        missing = size - len(self.rows)
        self.rows = np.concatenate([self.rows, np.full(missing, len(self.ids), np.int64)])
        self.targets = np.concatenate([self.targets, np.full(missing, -1, np.int64)])
