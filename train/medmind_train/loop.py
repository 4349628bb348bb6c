"""The training loop: steps, clipping, metrics, evaluations, checkpoints. Knows no data format and no report.

Several processes go through it side by side and decide the same; only the first writes and shows anything.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medmind import console
from medmind.artifacts import METRICS, write_json
from medmind.errors import MedmindError
from medmind_train import agreement, checkpoint, distributed, metrics, schedule, telling
from medmind_train.batches import real_tokens, supervised_tokens
from medmind_train.checkpoint import Position
from medmind_train.data_order import DataOrder
from medmind_train.divergence import LossWatch
from medmind_train.early_stopping import EarlyStopping
from medmind_train.evaluate import Perplexity, Room
from medmind_train.examples import Examples
from medmind_train.gradient import NotFinite, Rows
from medmind_train.hardware import Device, peak_memory
from medmind_train.interrupt import Interrupt
from medmind_train.live_view import View
from medmind_train.memory_full import MemoryFull
from medmind_train.metrics import StepMetrics
from medmind_train.micro_batch import MicroBatch
from medmind_train.model import load_adapter
from medmind_train.optimizer import set_learning_rate
from medmind_train.passes import Passes
from medmind_train.qlora_config import QloraConfig
from medmind_train.rundir import CHECKPOINTS

STOPPED = "stopped.json"
"""In a run directory: why training stopped by itself, at which step, and the rows of that step."""
_NAMED_ROWS = 16


class Trainer:
    """Takes a model from a position to the end of its plan.

    Args:
        model: the NF4 base with its adapter, for checkpoints; `passes`, `optimizer` and `scaler` belong to it.
        examples: what to train on.
        config: resolved, with `optimizer` and `dtype` chosen.
        run: the run directory; metrics and checkpoints go there.
        evaluate: measures on the validation rows, its progress shown as it is told; used every `config.eval_every`
            steps and after the last.
        room: of evaluations, shrunk where the memory was full; a checkpoint remembers it.

    Attributes:
        order: what is trained on when.
        stopping: the evaluations so far.
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
        evaluate: Callable[[console.Progress], Perplexity],
        room: Room,
    ) -> None:
        self.model = model
        self.passes = passes
        self.optimizer = optimizer
        self.scaler = scaler
        self.config = config
        self.device = device
        self.evaluate = evaluate
        self.room = room
        self.folder = run
        self.checkpoints = run / CHECKPOINTS
        self.metrics = run / METRICS
        self.stopped = run / STOPPED
        self.watch = LossWatch(config.rising_steps, config.rising_factor)
        self.order = DataOrder(examples, config)
        self.stopping = EarlyStopping(config.patience)
        self.micro = MicroBatch(
            passes,
            distributed.rows_a_pass(config.batch, config.accumulate),
            pad=pad,
            device=device,
            length=config.context if config.packing else None,
        )
        self.position = Position()
        self._rng = checkpoint.rng_state(device)
        self._saved = -1
        self._started = 0.0
        self._past: list[dict[str, Any]] = []

    def resume(self) -> int:
        """Take up the newest whole checkpoint, if there is one; returns the step reached."""
        path, torn = agreement.by_first(self._found)
        for name in torn:
            console.note(f"the checkpoint {name} is torn; going on from {path.name if path else 'the beginning'}")
        with agreement.together():
            if path:
                self.position = checkpoint.load(path, self.model, self.optimizer, self.scaler, self.device)
                self._rng = checkpoint.rng_state(self.device)
                self._saved = self.position.step
                if state := checkpoint.loop_state(path):
                    self.stopping.recall(state["stopping"])
                    self.micro.recall(state["micro_batch"])
                    self.room.tokens = min(self.room.tokens, state["evaluation_tokens"])
        self._past = agreement.by_first(lambda: metrics.forget_after(self.metrics, self.position.step))
        self.watch.recall([line["loss"] for line in self._past])
        self._check_same()
        return self.position.step

    def _found(self) -> tuple[Path | None, list[str]]:
        checkpoint.clear_leavings(self.checkpoints)
        self.stopped.unlink(missing_ok=True)
        return checkpoint.newest(self.checkpoints)

    def _check_same(self) -> None:
        """Every process has added the same sums to the same weights: hold them against each other."""
        if distributed.world()[1] > 1:
            values = [parameter for _, parameter in self.passes.named_parameters()]
            hint = "use cards of one kind, and one version of torch; the last checkpoint is as it was"
            agreement.same(checkpoint.digest(values), f"their adapters after step {self.position.step}", hint)

    def save(self) -> None:
        """Write a checkpoint of the last step that was completed, unless there is one."""
        if self._saved != self.position.step:
            self._check_same()
            rng = checkpoint.rng_states(self._rng)
            with agreement.together():
                if distributed.is_first():
                    self._write(rng)
            self._saved = self.position.step

    def _write(self, rng: dict[str, torch.Tensor]) -> None:
        best = self.stopping.best
        checkpoint.save(
            self.checkpoints,
            self.position,
            model=self.model,
            optimizer=self.optimizer,
            scaler=self.scaler,
            rng=rng,
            loop={
                "stopping": self.stopping.state(),
                "micro_batch": self.micro.state(),
                "evaluation_tokens": self.room.tokens,
            },
            needs=[best.step] if best and self._keeps_best and best.step != self.position.step else [],
        )

    def take_best(self) -> None:
        """Put the adapter of the best evaluation on the model, where that is to be kept and is not the last one."""
        best = self.stopping.best
        with agreement.together():
            if best and self._keeps_best and best.step != self.position.step:
                load_adapter(self.model, checkpoint.at(self.checkpoints, best.step))

    def run(self, interrupt: Interrupt) -> Position:
        """Train to the end of the plan, or of the patience.

        Raises:
            KeyboardInterrupt: `interrupt` was requested; the last completed step is in a checkpoint.
            MemoryFull: with one row a pass, and the last completed step is in a checkpoint; or in an evaluation with
                one row, and a resume goes on from the newest checkpoint before it, without one from the beginning.
            MedmindError: the loss is not finite, with the state before that step in a checkpoint, or has been rising,
                with the state after it in one; the step's rows are in `stopped.json`.
        """
        self.model.train()
        interrupt.deferred = True
        self._started = time.monotonic() - self.position.seconds
        total = self.order.total
        try:
            with telling.opened(self.folder, self.config, total=total, past=self._past, after=self.position.step) as (
                tell,
                view,
            ):
                while self.position.step < total and not self.stopping.exhausted:
                    line = self._step(interrupt)
                    if line is None:
                        self.save()
                        raise KeyboardInterrupt
                    line, improved = self._evaluated(line, view)
                    tell(line)
                    self._refuse_rising(line)
                    every = self.config.checkpoint_every
                    last = line.step == total or self.stopping.exhausted
                    if last or (improved and self._keeps_best) or (every and line.step % every == 0):
                        self.save()
        finally:
            interrupt.deferred = False
        if distributed.totals(interrupt.requested)[0]:
            raise KeyboardInterrupt
        return self.position

    @property
    def _keeps_best(self) -> bool:
        return self.config.keep == "best"

    def _evaluated(self, line: StepMetrics, view: View) -> tuple[StepMetrics, bool]:
        """The line with the evaluation that is due after its step, and whether that was the best so far."""
        every = self.config.eval_every
        if not every or (line.step % every and line.step != self.order.total):
            return line, False
        began = time.monotonic()
        measured = self.evaluate(view.progress)
        self._started += time.monotonic() - began
        improved = self.stopping.improves(line.step, measured)
        return replace(line, validation_loss=measured.nll, validation_error=measured.nll_error), improved

    def _step(self, interrupt: Interrupt) -> StepMetrics | None:
        """One optimizer step; None when an interrupt was requested, with the step not done."""
        config, step = self.config, self.position.step
        began = time.monotonic()
        chosen = self.order.rows(step)
        lr = config.lr * schedule.rate(step, self.order.total, kind=config.schedule, warmup=config.warmup)
        set_learning_rate(self.optimizer, lr)
        try:
            done = self.micro.gradient(chosen, stop=lambda: interrupt.requested)
            if done is None:
                return None
            loss, padded = done
            norm = self._update(chosen)
        except NotFinite as error:
            raise self._stop(step + 1, str(error), error.rows, "the state before it is in", "lower --lr") from error
        except MemoryFull:
            self.save()
            raise
        if news := self.micro.news():
            console.note(f"step {step + 1}: {news}")
        real = real_tokens(chosen)
        now = time.monotonic()
        memory = peak_memory(self.device)
        self._rng = checkpoint.rng_state(self.device)
        self.position = Position(
            step=step + 1,
            seconds=now - self._started,
            tokens=self.position.tokens + real,
            padded=self.position.padded + padded,
            peak_memory=max(memory, self.position.peak_memory),
        )
        return StepMetrics(
            step=step + 1,
            epoch=round((step + 1) / self.order.per_epoch, 4),
            loss=loss,
            lr=lr,
            grad_norm=norm if math.isfinite(norm) else None,
            examples=sum(len(row) for row in chosen),
            tokens=real,
            supervised_tokens=supervised_tokens(chosen),
            padding=round(1 - real / padded, 4),
            tokens_per_s=round(real / (now - began), 1),
            seconds=round(now - self._started, 3),
            memory=memory,
        )

    def _refuse_rising(self, line: StepMetrics) -> None:
        if self.watch.rising(line.loss):
            rows = [example.row for row in self.order.rows(line.step - 1) for example in row]
            what = (
                f"the loss is rising: {self.watch.smoothed:.3f} (smoothed), its best was {self.watch.best:.3f}, "
                f"far above it for {self.watch.patience} steps"
            )
            hint = "start again with a lower --lr; --rising-steps 0 turns this check off"
            raise self._stop(line.step, what, rows, "the state after it is in", hint)

    def _stop(self, step: int, what: str, rows: Sequence[str], where: str, hint: str) -> MedmindError:
        """Save a checkpoint and the step's rows; returns the error to raise."""
        self.save()
        with agreement.together():
            if distributed.is_first():
                write_json(self.stopped, {"step": step, "reason": what, "rows": list(rows)})
        named = ", ".join(rows[:_NAMED_ROWS])
        if len(rows) > _NAMED_ROWS:
            named += f" and {len(rows) - _NAMED_ROWS:,} more (all in {self.stopped.name})"
        return MedmindError(
            f"step {step}: {what}, on the rows {named}; {where} the checkpoint step-{self.position.step}",
            f"{hint}, or look at those rows",
        )

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
