"""How many rows go through the model at once, and how that shrinks when the memory is full. Knows no optimizer.

The effective batch stays what it is: half the rows a pass are twice the passes, and the same gradient.
"""

from collections.abc import Callable, Mapping
from typing import Any

from medmind_train import checkpoint, distributed
from medmind_train.gradient import Rows, backward
from medmind_train.hardware import Device
from medmind_train.memory_full import MemoryFull, give_back
from medmind_train.passes import Passes


class MicroBatch:
    """The rows of a pass, as many as the settings say until that turns out too many.

    Args:
        rows: at first.
        length: tokens of every row, where all passes have one shape; else None.

    Attributes:
        rows: at present.
    """

    def __init__(self, passes: Passes, rows: int, *, pad: int, device: Device, length: int | None) -> None:
        self.rows = self._asked = rows
        self._passes = passes
        self._pad = pad
        self._device: Device = device
        self._length = length
        self._lean = False
        self._news: str | None = None

    def gradient(self, rows: Rows, *, stop: Callable[[], bool]) -> tuple[float, int] | None:
        """Compute the gradient of one optimizer step, from the start again with less memory where that was full.

        Args:
            rows: the effective batch, over all processes.
            stop: asked after each pass.

        Returns:
            The step's loss (nats per supervised token) and padded tokens; None when it was to stop.

        Raises:
            MemoryFull: with one row already.
            NotFinite: a loss that is not finite.
        """
        rng = checkpoint.rng_state(self._device)
        tried = self.rows
        while True:
            try:
                done = self._once(rows, stop)
            except MemoryFull:
                done = None
            else:
                if done and tried != self.rows:
                    fewer = (
                        f"the memory was full with {tried} rows a pass; did the step again with {self.rows}, and so it "
                        f"goes on ({len(rows)} rows a step as before)"
                    )
                    self._news = f"{fewer}; then {self._news}" if self._news else fewer
                return done
            self._shrink()
            checkpoint.set_rng_state(rng, self._device)  # dropout draws the same again

    def _once(self, rows: Rows, stop: Callable[[], bool]) -> tuple[float, int] | None:
        self._passes.zero_gradients()
        return backward(
            self._passes,
            rows,
            batch=self.rows,
            pad=self._pad,
            length=self._length,
            stop=stop,
        )

    def _shrink(self) -> None:
        if self.rows > 1:
            self.rows //= 2
            self._passes.shrink(self.rows)
        elif distributed.totals(self._passes.leaner())[0]:  # one process may have had more room than another
            self._lean = True
            self._news = "the memory was full; did the step again with less kept on the card, and so it goes on"
        else:
            raise MemoryFull
        give_back()

    def news(self) -> str | None:
        """What is to be said of the last step, once."""
        told, self._news = self._news, None
        return told

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"rows": self.rows if self.rows < self._asked else None, "lean": self._lean}

    def recall(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave: a run that goes on does not run into the same wall again."""
        if state["rows"] is not None and state["rows"] < self.rows:
            self.rows = state["rows"]
            self._passes.shrink(self.rows)
        if state["lean"]:
            self._lean = self._passes.leaner()
