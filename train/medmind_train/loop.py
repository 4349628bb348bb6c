"""The training loop: steps, accumulation, clipping, metrics, checkpoints. Knows no data format and no report.

The loss of a step is the sum over its supervised tokens divided by their number in the whole effective batch, so that
`batch × accumulate` may be split in any way, over processes too, without changing the gradient.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from medmind import console
from medmind.artifacts import METRICS, write_json
from medmind.errors import MedmindError
from medmind_train import checkpoint, distributed, metrics, schedule
from medmind_train.batches import Batch, collate, epoch_steps, real_tokens, supervised_tokens
from medmind_train.checkpoint import Position
from medmind_train.divergence import LossWatch
from medmind_train.examples import Example, Examples
from medmind_train.hardware import Device, peak_memory
from medmind_train.interrupt import Interrupt
from medmind_train.metrics import StepMetrics
from medmind_train.optimizer import set_learning_rate
from medmind_train.passes import Passes
from medmind_train.qlora_config import QloraConfig
from medmind_train.rundir import CHECKPOINTS

STOPPED = "stopped.json"
"""In a run directory: why training stopped by itself, at which step, and the rows of that step."""
_NAMED_ROWS = 16

Rows = Sequence[Sequence[Example]]
"""Rows of a batch, each with the examples in it."""


def plan(examples: Examples, config: QloraConfig) -> tuple[int, int]:
    """Optimizer steps in all, and in one epoch."""
    per_epoch = len(_epoch(examples, config, 0))
    return config.max_steps or math.ceil(config.epochs * per_epoch), per_epoch


def _epoch(examples: Examples, config: QloraConfig, epoch: int) -> list[list[list[int]]]:
    return epoch_steps(
        examples.lengths,
        effective=config.batch * config.accumulate,
        seed=config.seed,
        epoch=epoch,
        capacity=config.context if config.packing else None,
    )


def backward(
    passes: Passes, rows: Rows, *, batch: int, pad: int, device: Device, length: int | None = None
) -> Iterator[tuple[float, int]]:
    """Add the gradient of one optimizer step, one pass at a time; summed over all processes at the end.

    Args:
        rows: this process's part of the effective batch; `batch` of them go through the model together.
        length: tokens of every row, and every pass is of `batch` rows; None: as long as the longest, as many as left.

    Yields:
        For each pass: its share of the step's loss (nats per supervised token of the step) and its padded tokens. That
        is read when the next pass is on its way already, so that a card never waits for its host.

    Raises:
        NotFinite: a loss that is not finite; knows the rows.
    """
    total = distributed.total(supervised_tokens(rows), device)
    before: tuple[torch.Tensor, Batch] | None = None
    for start in range(0, len(rows), batch):
        part = collate(rows[start : start + batch], pad, "cpu", shape=(batch, length) if length else None)
        share = passes.add_gradient(part, total)
        if before:
            yield _read(*before)
        before = share, part
    if before:
        yield _read(*before)
    distributed.sum_gradients([parameter for _, parameter in passes.named_parameters()])


def _read(share: torch.Tensor, part: Batch) -> tuple[float, int]:
    value = float(share)
    if not math.isfinite(value):
        raise NotFinite(value, part.rows)
    return value, part.ids.numel()


class NotFinite(ArithmeticError):
    """A loss or gradient that is no number, and the rows it came from."""

    def __init__(self, value: float, rows: Sequence[str], what: str = "loss") -> None:
        super().__init__(f"the {what} is {value}")
        self.rows = tuple(rows)


class Trainer:
    """Takes a model from a position to the end of its plan.

    Args:
        model: the NF4 base with its adapter, for checkpoints; `passes`, `optimizer` and `scaler` belong to it.
        examples: what to train on.
        config: resolved, with `optimizer` and `dtype` chosen.
        run: the run directory; metrics and checkpoints go there.
        evaluate: measures held-out perplexity; used every `config.eval_every` steps.
    """

    def __init__(
        self,
        model: Any,
        passes: Passes,
        optimizer: Any,
        scaler: Any,
        examples: Examples,
        config: QloraConfig,
        *,
        run: Path,
        pad: int,
        device: Device,
        evaluate: Callable[[], float],
    ) -> None:
        self.model = model
        self.passes = passes
        self.optimizer = optimizer
        self.scaler = scaler
        self.examples = examples
        self.config = config
        self.pad = pad
        self.device = device
        self.evaluate = evaluate
        self.checkpoints = run / CHECKPOINTS
        self.metrics = run / METRICS
        self.stopped = run / STOPPED
        self.watch = LossWatch(config.rising_steps, config.rising_factor)
        self.total, self.per_epoch = plan(examples, config)
        self.position = Position()
        self._rng = checkpoint.rng_state(device)
        self._saved = -1
        self._order: tuple[int, list[list[list[int]]]] | None = None

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
        self.watch.recall([line["loss"] for line in metrics.forget_after(self.metrics, self.position.step)])
        self.stopped.unlink(missing_ok=True)
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
            MedmindError: the loss is not finite, with the state before that step in a checkpoint, or has been rising,
                with the state after it in one; the step's rows are in `stopped.json`.
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
                    self._refuse_rising(line)
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
        chosen = self._rows_of(step)
        lr = config.lr * schedule.rate(step, self.total, kind=config.schedule, warmup=config.warmup)
        set_learning_rate(self.optimizer, lr)
        self.passes.zero_gradients()
        loss, padded = 0.0, 0
        try:
            for share, tokens in backward(
                self.passes,
                distributed.share(chosen),
                batch=config.batch,
                pad=self.pad,
                device=self.device,
                length=config.context if config.packing else None,
            ):
                loss += share
                padded += tokens
                if interrupt.requested:
                    return None
            loss, padded = distributed.total(loss, self.device), int(distributed.total(padded, self.device))
            norm = self._update(chosen)
        except NotFinite as error:
            raise self._stop(step + 1, str(error), error.rows, "the state before it is in", "lower --lr") from error
        real = real_tokens(chosen)
        now = time.monotonic()
        memory = peak_memory(self.device)
        self._rng = checkpoint.rng_state(self.device)
        self.position = Position(
            step=step + 1,
            seconds=now - started,
            tokens=self.position.tokens + real,
            padded=self.position.padded + padded,
            peak_memory=max(memory, self.position.peak_memory),
        )
        every = config.eval_every
        heldout = self.evaluate() if every and (step + 1) % every == 0 and step + 1 < self.total else None
        return StepMetrics(
            step=step + 1,
            epoch=round((step + 1) / self.per_epoch, 4),
            loss=loss,
            lr=lr,
            grad_norm=norm if math.isfinite(norm) else None,
            examples=sum(len(row) for row in chosen),
            tokens=real,
            supervised_tokens=supervised_tokens(chosen),
            padding=round(1 - real / padded, 4),
            tokens_per_s=round(real / (now - began), 1),
            seconds=round(now - started, 3),
            memory=memory,
            heldout_perplexity=heldout,
        )

    def _refuse_rising(self, line: StepMetrics) -> None:
        if self.watch.rising(line.loss):
            rows = [example.row for row in self._rows_of(line.step - 1) for example in row]
            what = (
                f"the loss is rising: {self.watch.smoothed:.3f} (smoothed), its best was {self.watch.best:.3f}, "
                f"far above it for {self.watch.patience} steps"
            )
            hint = "start again with a lower --lr; --rising-steps 0 turns this check off"
            raise self._stop(line.step, what, rows, "the state after it is in", hint)

    def _stop(self, step: int, what: str, rows: Sequence[str], where: str, hint: str) -> MedmindError:
        """Save a checkpoint and the step's rows; returns the error to raise."""
        self.save()
        write_json(self.stopped, {"step": step, "reason": what, "rows": list(rows)})
        named = ", ".join(rows[:_NAMED_ROWS])
        if len(rows) > _NAMED_ROWS:
            named += f" and {len(rows) - _NAMED_ROWS:,} more (all in {self.stopped.name})"
        return MedmindError(
            f"step {step}: {what}, on the rows {named}; {where} the checkpoint step-{self.position.step}",
            f"{hint}, or look at those rows",
        )

    def _rows_of(self, step: int) -> list[list[Example]]:
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, _epoch(self.examples, self.config, epoch)
        return [[self.examples[index] for index in row] for row in self._order[1][place]]

    def _update(self, rows: Rows) -> float:
        """Clip, step and return the gradient norm before clipping; not finite where fp16 overflowed and was skipped."""
        self.scaler.unscale_(self.optimizer)
        limit = self.config.grad_clip or math.inf
        parameters = [parameter for _, parameter in self.passes.named_parameters()]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise NotFinite(norm, [example.row for row in rows for example in row], "gradient")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm
