"""One candidate trained and scored. The base is loaded once for all of them, and their adapters come and go.

One process, because starting one, importing torch and loading a 7B would cost a short trial more than its training;
an adapter is taken off without a trace, which tests/train/qlora/test_search.py holds.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medmind import console
from medmind.errors import MedmindError
from medmind_train import evaluate, hardware, model, optimizer
from medmind_train.checkpoint import Position
from medmind_train.evaluate import Perplexity, Room
from medmind_train.examples import Example
from medmind_train.fused import build as build_fused
from medmind_train.fused import loading
from medmind_train.inputs import Inputs
from medmind_train.interrupt import Interrupt
from medmind_train.loop import STOPPED, Trainer
from medmind_train.loss import mixes_packed_rows
from medmind_train.memory_full import MemoryFull, is_memory_full
from medmind_train.passes import Passes, ReferencePasses
from medmind_train.qlora_config import QloraConfig, vram
from medmind_train.rundir import CHECKPOINTS
from medmind_train.search import place
from medmind_train.search.place import Outcome
from medmind_train.search.space import Candidate


class Bench:
    """A loaded base that candidates are tried on.

    Args:
        inputs: of the run as given.
        validation: the examples that candidates are scored on.
        largest: the candidate with the most to train, for which memory is shared out.
        cost: of so many trained tokens of a candidate, and of scoring it, in runs.
    """

    def __init__(
        self,
        inputs: Inputs,
        validation: Sequence[Example],
        largest: Candidate,
        cost: Callable[[Candidate, int], float],
    ) -> None:
        self.inputs = inputs
        self.validation = validation
        self._cost = cost
        config, device = inputs.config, inputs.hardware.device
        self._placement = None
        if config.kernels == "fused":
            room = vram(config)
            most = replace(config, **largest.settings())
            self._placement = build_fused.placement_of(inputs.base, most, inputs.hardware, inputs.dtype)
            if room is not None and device == "cuda":
                build_fused.hold(room)
            self._base = loading.load(inputs.base, device, inputs.dtype, self._placement)
        else:
            self._base = model.load_base(inputs.base, device, inputs.dtype)
            if config.packing and mixes_packed_rows(self._base, device, len(inputs.tokenizer)):
                raise MedmindError(
                    f"{inputs.base.name} does not keep the examples of a packed row apart", "give --no-packing"
                )

    def run(self, candidate: Candidate, rung: int, steps: int, folder: Path, interrupt: Interrupt) -> Outcome:
        """Train a candidate, from its checkpoint where it was cut off, and score it; the result is kept in `folder`.

        A loss that diverges and a memory that is full are results.

        Raises:
            KeyboardInterrupt: `interrupt` was requested; the last completed step is in a checkpoint.
        """
        config = replace(
            self.inputs.config,
            **candidate.settings(),
            max_steps=steps,
            eval_every=0,
            patience=0,
            keep="last",
            log_to=None,
            name=None,
        )
        (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        tuned: Any = None
        trainer: Trainer | None = None
        position, status, reason = None, "done", ""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        try:
            scaler = torch.amp.GradScaler(self.inputs.hardware.device, enabled=self.inputs.dtype == "float16")
            try:
                tuned, passes = self._adapted(config, scaler)
                room = Room(config.batch * config.context)
                trainer = self._trainer(tuned, passes, config, folder, scaler, room)
                if reached := trainer.resume():
                    console.note(f"candidate {candidate.number} goes on after step {reached} of {steps}")
                position = trainer.run(interrupt)
                scored = evaluate.score(
                    passes,
                    self.validation,
                    pad=self.inputs.pad,
                    room=room,
                    description="validation loss",
                )
                sums, counts = scored.sums, scored.counts
            except MedmindError as error:
                if position is None and (trainer is None or not (folder / STOPPED).exists()):
                    raise
                status, reason = "diverged", error.message
            except (MemoryFull, RuntimeError, MemoryError) as error:
                if not (isinstance(error, MemoryFull) or is_memory_full(error)):
                    raise
                status, reason = "out of memory", f"the memory of {self.inputs.hardware.name} is full"
            position = Position() if trainer is None else trainer.position
        finally:
            passes = trainer = scaler = None  # type: ignore[assignment]  # what they hold has to go with the adapter
            self._bare(tuned)
        ended = Outcome(
            candidate=candidate.number,
            rung=rung,
            steps=steps,
            status=status,
            reason=reason,
            sums=sums,
            counts=counts,
            tokens=position.tokens,
            cost=self._cost(candidate, position.tokens),
            seconds=round(position.seconds, 3),
            memory=max(position.peak_memory, hardware.peak_memory(self.inputs.hardware.device)),
        )
        place.keep(folder, ended)
        return ended

    def _trainer(
        self, tuned: Any, passes: Passes, config: QloraConfig, folder: Path, scaler: Any, room: Room
    ) -> Trainer:
        groups = optimizer.groups(
            passes.named_parameters(), weight_decay=config.weight_decay, lora_plus=config.lora_plus
        )
        return Trainer(
            tuned,
            passes,
            optimizer.make(config.optimizer, groups, lr=config.lr, weight_decay=config.weight_decay),
            scaler,
            self.inputs.train.examples,
            config,
            run=folder,
            pad=self.inputs.pad,
            device=self.inputs.hardware.device,
            evaluate=lambda _: _never(),
            room=room,
        )

    def _adapted(self, config: QloraConfig, scaler: Any) -> tuple[Any, Passes]:
        inputs = self.inputs
        if self._placement is not None:
            return build_fused.adapt(self._base, inputs.base, config, dtype=inputs.dtype, placement=self._placement)
        tuned = model.add_adapter(
            self._base,
            inputs.base,
            targets=config.targets,
            rank=config.rank,
            alpha=config.alpha,
            dropout=config.dropout,
            rslora=config.rslora,
            dora=config.dora,
            checkpointing=bool(config.gradient_checkpointing),
            seed=config.seed,
        )
        return tuned, ReferencePasses(tuned, device=inputs.hardware.device, dtype=inputs.dtype, scaler=scaler)

    def _bare(self, tuned: Any) -> None:
        """Take the adapter off, and give its memory back."""
        if tuned is not None:
            self._base = tuned.unload()
        else:
            self._strip()
        self._base.requires_grad_(False)
        gc.collect()
        if self.inputs.hardware.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _strip(self) -> None:
        """Take off what an adapter left that was never whole, and that PEFT therefore cannot take off."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in list(self._base.named_modules()):
            if isinstance(module, BaseTunerLayer):
                above, _, own = name.rpartition(".")
                setattr(self._base.get_submodule(above), own, module.get_base_layer())
        if hasattr(self._base, "peft_config"):
            del self._base.peft_config


def _never() -> Perplexity:
    raise AssertionError("a trial is scored when it has ended")
