"""When a training loss counts as rising. Knows losses; not what to do about it."""

from collections import deque
from statistics import median

_WINDOW = 32
"""Steps that the loss is smoothed over, by their median: a few bad batches do not move it."""
_LEAST = 0.1
"""Nats that the smoothed loss must lie above its best, whatever the factor says: a loss near zero doubles by chance."""


class LossWatch:
    """Follows the loss, step by step.

    Args:
        patience: steps in a row that the smoothed loss must be far above its best; 0: never rising.
        factor: far is more than this many times the best.
    """

    def __init__(self, patience: int, factor: float) -> None:
        self.patience = patience
        self.factor = factor
        self.best = float("inf")
        self.smoothed = float("inf")
        self._last: deque[float] = deque(maxlen=_WINDOW)
        self._above = 0

    def recall(self, losses: list[float]) -> None:
        """Take up the losses of a run that goes on: what was best still counts, the patience begins anew."""
        for loss in losses:
            self.rising(loss)
        self._above = 0

    def rising(self, loss: float) -> bool:
        """Take in the loss of one step; true once it has been rising for as long as the patience lasts."""
        self._last.append(loss)
        if not self.patience or len(self._last) < _WINDOW:
            return False
        self.smoothed = median(self._last)
        self.best = min(self.best, self.smoothed)
        far = self.smoothed > max(self.factor * self.best, self.best + _LEAST)
        self._above = self._above + 1 if far else 0
        return self._above >= self.patience
