"""Copies between host and card beside the computation: one direction a lane. Knows streams; nothing of what travels.

On a CPU a copy is done at once, so that the code around it is one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class Lane:
    """A stream of its own for copies in one direction."""

    def __init__(self, device: torch.device) -> None:
        make: Any = torch.cuda.Stream  # it has no annotations
        self._stream = make(device) if device.type == "cuda" else None

    def run(self, work: Callable[[], None]) -> "Arrival":
        """Do `work`, which only enqueues copies, after everything enqueued on the current stream so far."""
        if self._stream is None:
            work()
            return Arrival(None)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            work()
            make: Any = torch.cuda.Event
            event = make()
            event.record(self._stream)
        return Arrival(event)

    def copy(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> "Arrival":
        """Copy each pair's second tensor into its first.

        The tensors must live until the arrival has been waited for: memory on the card belongs to the current stream.
        """

        def work() -> None:
            for target, source in pairs:
                target.copy_(source, non_blocking=True)

        return self.run(work)


class Arrival:
    """The end of a copy."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def wait(self) -> None:
        """What is enqueued on the current stream from now on comes after it."""
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)
