"""The training loop: steps, accumulation, clipping, metrics, checkpoints. Knows no data format and no report.

The loss of a step is the sum over its supervised tokens divided by their number in the whole effective batch, so that
`batch × accumulate` may be split in any way without changing the gradient.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from medmind import console
from medmind.errors import MedmindError
from medmind_train import checkpoint, metrics, schedule
from medmind_train.batches import collate, epoch_steps, supervised_tokens
from medmind_train.checkpoint import Position
from medmind_train.encoding import Example
from medmind_train.hardware import Device, Dtype, peak_memory
from medmind_train.interrupt import Interrupt
from medmind_train.loss import answer_nll
from medmind_train.metrics import StepMetrics
from medmind_train.model import precision, trainable
from medmind_train.optimizer import set_learning_rate
from medmind_train.qlora_config import QloraConfig


def plan(examples: Sequence[Example], config: QloraConfig) -> tuple[int, int]:
    """Optimizer steps in all, and in one epoch."""
    per_epoch = -(-len(examples) // (config.batch * config.accumulate))
    return config.max_steps or math.ceil(config.epochs * per_epoch), per_epoch


def backward(
    model: Any, examples: Sequence[Example], *, batch: int, pad: int, device: Device, dtype: Dtype, scaler: Any
) -> Iterator[tuple[float, int]]:
    """Add the gradient of one optimizer step, one forward pass at a time.

    Args:
        examples: the effective batch; `batch` of them go through the model together.
        scaler: a `torch.amp.GradScaler`; gradients come out multiplied by its scale.

    Yields:
        After each pass: its share of the step's loss (nats per supervised token of the step) and its padded tokens.

    Raises:
        MedmindError: a loss that is not finite; names the rows.
    """
    total = supervised_tokens(examples)
    for start in range(0, len(examples), batch):
        part = collate(examples[start : start + batch], pad, device)
        with precision(device, dtype):
            nll, _ = answer_nll(model, part)
        loss = nll.sum() / total
        share = float(loss.detach())
        if not math.isfinite(share):
            raise MedmindError(
                f"the loss is {share} on the rows {', '.join(part.rows)}", "lower --lr, or look at those rows"
            )
        scaler.scale(loss).backward()
        yield share, part.ids.numel()


class Trainer:
    """Takes a model from a position to the end of its plan.

    Args:
        model: the NF4 base with its adapter; `optimizer` and `scaler` belong to it.
        examples: what to train on.
        config: resolved, with `optimizer` and `dtype` chosen.
        run: the run directory; metrics and checkpoints go there.
        evaluate: measures held-out perplexity; used every `config.eval_every` steps.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        scaler: Any,
        examples: Sequence[Example],
        config: QloraConfig,
        *,
        run: Path,
        pad: int,
        device: Device,
        dtype: Dtype,
        evaluate: Callable[[], float],
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scaler = scaler
        self.examples = examples
        self.config = config
        self.pad = pad
        self.device = device
        self.dtype = dtype
        self.evaluate = evaluate
        self.checkpoints = run / "checkpoints"
        self.metrics = run / "metrics.jsonl"
        self.total, self.per_epoch = plan(examples, config)
        self.position = Position()
        self._rng = checkpoint.rng_state(device)
        self._saved = -1
        self._order: tuple[int, list[list[int]]] | None = None

    def resume(self) -> int:
        """Take up the newest whole checkpoint, if there is one; returns the step reached."""
        checkpoint.clear_leavings(self.checkpoints)
        found = checkpoint.newest(self.checkpoints)
        if found:
            path, torn = found
            for name in torn:
                console.note(f"the checkpoint {name} is torn; going on from {path.name}")
            self.position = checkpoint.load(path, self.model, self.optimizer, self.scaler, self.device)
            self._rng = checkpoint.rng_state(self.device)
            self._saved = self.position.step
        metrics.forget_after(self.metrics, self.position.step)
        return self.position.step

    def save(self) -> None:
        """Write a checkpoint of the last step that was completed, unless there is one."""
        if self._saved != self.position.step:
            checkpoint.save(
                self.checkpoints,
                self.position,
                model=self.model,
                optimizer=self.optimizer,
                scaler=self.scaler,
                rng=self._rng,
            )
            self._saved = self.position.step

    def run(self, interrupt: Interrupt) -> Position:
        """Train to the end of the plan.

        Raises:
            KeyboardInterrupt: `interrupt` was requested; the last completed step is in a checkpoint.
            MedmindError: the loss is not finite; the state before that step is in a checkpoint.
        """
        self.model.train()
        interrupt.deferred = True
        started = time.monotonic() - self.position.seconds
        try:
            with metrics.appending(self.metrics) as log, metrics.display(self.position.step, self.total) as show:
                while self.position.step < self.total:
                    line = self._step(started, interrupt)
                    if line is None:
                        self.save()
                        raise KeyboardInterrupt
                    log(line)
                    show(line)
                    every = self.config.checkpoint_every
                    if self.position.step == self.total or (every and self.position.step % every == 0):
                        self.save()
        finally:
            interrupt.deferred = False
        return self.position

    def _step(self, started: float, interrupt: Interrupt) -> StepMetrics | None:
        """One optimizer step; None when an interrupt was requested, with the step not done."""
        config, step = self.config, self.position.step
        began = time.monotonic()
        chosen = self._examples_of(step)
        lr = config.lr * schedule.rate(step, self.total, kind=config.schedule, warmup=config.warmup)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        loss, padded = 0.0, 0
        try:
            for share, tokens in backward(
                self.model,
                chosen,
                batch=config.batch,
                pad=self.pad,
                device=self.device,
                dtype=self.dtype,
                scaler=self.scaler,
            ):
                loss += share
                padded += tokens
                if interrupt.requested:
                    return None
        except MedmindError as error:
            self.save()
            raise MedmindError(
                f"step {step + 1}: {error.message}; the state before it is in the checkpoint step-{step}", error.hint
            ) from error
        norm = self._update()
        real = sum(len(example.ids) for example in chosen)
        now = time.monotonic()
        memory = peak_memory(self.device)
        self._rng = checkpoint.rng_state(self.device)
        self.position = Position(
            step + 1, now - started, self.position.tokens + real, max(memory, self.position.peak_memory)
        )
        every = config.eval_every
        heldout = self.evaluate() if every and (step + 1) % every == 0 and step + 1 < self.total else None
        return StepMetrics(
            step=step + 1,
            epoch=round((step + 1) / self.per_epoch, 4),
            loss=loss,
            lr=lr,
            grad_norm=norm if math.isfinite(norm) else None,
            tokens=real,
            supervised_tokens=supervised_tokens(chosen),
            padding=round(1 - real / padded, 4),
            tokens_per_s=round(real / (now - began), 1),
            seconds=round(now - started, 3),
            memory=memory,
            heldout_perplexity=heldout,
        )

    def _examples_of(self, step: int) -> list[Example]:
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            lengths = [len(example.ids) for example in self.examples]
            effective = self.config.batch * self.config.accumulate
            self._order = epoch, epoch_steps(lengths, effective=effective, seed=self.config.seed, epoch=epoch)
        return [self.examples[index] for index in self._order[1][place]]

    def _update(self) -> float:
        """Clip, step and return the gradient norm before clipping; not finite where fp16 overflowed and was skipped."""
        self.scaler.unscale_(self.optimizer)
        limit = self.config.grad_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(trainable(self.model), limit))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            step = self.position.step
            self.save()
            raise MedmindError(
                f"step {step + 1}: the gradient is {norm}; the state before it is in the checkpoint step-{step}",
                "lower --lr",
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm
