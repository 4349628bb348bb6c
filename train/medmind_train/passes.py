"""One forward and backward pass as the training loop sees it, and the reference: transformers, PEFT and autograd.

The fused step (`fused/step.py`) is the other. Knows models and batches; no optimizer, no schedule.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from medmind_train import distributed
from medmind_train.batches import Batch
from medmind_train.hardware import Device, Dtype
from medmind_train.loss import Scores, answer_nll, answer_scores
from medmind_train.model import precision


class Passes(Protocol):
    """What the loop and the evaluation want of a model."""

    lockstep: bool
    """Whether a pass goes on in all processes at once, so that each has to make as many as the others."""

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        """What the optimizer updates; LoRA's names are PEFT's as far as `.lora_A.` and `.lora_B.` go."""
        ...

    def zero_gradients(self) -> None:
        """Forget the gradients."""
        ...

    def add_gradient(self, batch: Batch, divisor: float) -> torch.Tensor:
        """Add the gradient of the batch's summed loss / `divisor`.

        Args:
            batch: on the host.

        Returns:
            The batch's share of the loss, 0-d on the device: nothing needs to have waited for it.
        """
        ...

    def scores(self, batch: Batch, *, likeliest: bool = False) -> Scores:
        """Score the supervised tokens of a batch on the host, without dropout and without a gradient."""
        ...

    def shrink(self, rows: int) -> None:
        """Batches to train on have at most so many rows from here on: forget what was made for larger ones."""
        ...

    def leaner(self) -> bool:
        """Take less memory for the same batch from here on; false: there is no way."""
        ...


class ReferencePasses:
    """The plain path, on any device and for every model that PEFT can adapt.

    Args:
        scaler: a `torch.amp.GradScaler`; gradients come out multiplied by its scale.
        lockstep: the model is in pieces over the processes.
    """

    def __init__(self, model: Any, *, device: Device, dtype: Dtype, scaler: Any = None, lockstep: bool = False) -> None:
        self.model = model
        self.lockstep = lockstep
        self._device: Device = device
        self._dtype: Dtype = dtype
        self._scaler = scaler or torch.amp.GradScaler(device, enabled=False)

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        """PEFT's own trainable parameters."""
        return ((name, one) for name, one in self.model.named_parameters() if one.requires_grad)

    def zero_gradients(self) -> None:
        """Free the gradients' memory."""
        for _, parameter in self.named_parameters():
            parameter.grad = None

    def add_gradient(self, batch: Batch, divisor: float) -> torch.Tensor:
        """See `Passes`."""
        with self._side_by_side():
            with precision(self._device, self._dtype):
                nll, _ = answer_nll(self.model, batch.to(self._device))
            loss = nll.sum() / divisor
            self._scaler.scale(loss).backward()
        return loss.detach()

    def scores(self, batch: Batch, *, likeliest: bool = False) -> Scores:
        """See `Passes`; the model is left in the mode (train or eval) it was in."""
        training = self.model.training
        self.model.eval()
        try:
            with self._side_by_side(), torch.no_grad(), precision(self._device, self._dtype):
                return answer_scores(self.model, batch.to(self._device), likeliest=likeliest)
        finally:
            self.model.train(training)

    @contextmanager
    def _side_by_side(self) -> Iterator[None]:
        """Where another process is waited for, it may have gone."""
        try:
            yield
        except RuntimeError as error:
            if self.lockstep:
                distributed.refuse_lost(error)
            raise

    def shrink(self, rows: int) -> None:
        """Nothing was made for a certain size."""

    def leaner(self) -> bool:
        """The settings have said how lean it is to be."""
        return False
