"""What a way to compute a step must offer to be measured. Knows no way."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from medmind_train.qlora_config import QloraConfig

if TYPE_CHECKING:
    import torch

    from medmind_train.batches import Batch

CLIP = QloraConfig().grad_clip
"""Largest gradient norm of our steps, as `medmind-train qlora` clips them."""


class Stepper(Protocol):
    """A loaded model with its optimizer. Making one loads it, so that the peak of loading is seen."""

    @property
    def trainable(self) -> "Sequence[torch.Tensor]":
        """The trained tensors."""

    @property
    def pinned(self) -> int | None:
        """Bytes of page-locked host memory that it holds; None: it does not know."""

    @property
    def flags(self) -> Mapping[str, str]:
        """What it chose for itself, for the record."""

    def step(self, batch: "Batch") -> "torch.Tensor":
        """Forward, backward, update.

        Args:
            batch: in host memory; its documents are told by `positions`, which start at 0 in each.

        Returns:
            The loss before the update, a scalar: nats per supervised token (`batch.supervised[:, 1:]`). It may be on
            the card and not computed yet; the caller waits for it.
        """
