"""The pretraining loop: model, optimizer, place in the data, checkpoints. Knows no text and no finished directory."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from medmind.artifacts import METRICS, atomic_directory, read_json, write_json
from medmind.console import note, progress
from medmind.errors import MedmindError
from medmind_train.interrupt import Interrupt
from medmind_train.metrics import forget_after
from medmind_train.pretrain import model as shapes
from medmind_train.pretrain import validation
from medmind_train.pretrain.config import PretrainConfig
from medmind_train.pretrain.optimizers import Optimizers
from medmind_train.pretrain.tokenfile import TokenFile
from medmind_train.pretrain.windows import Windows, training_windows
from medmind_train.schedule import rate

_LOG_EVERY = 20


class Interrupted(Exception):
    """Training stopped before its end, with a checkpoint to go on from."""


@dataclass
class Progress:
    """Over all starts.

    Attributes:
        step: optimizer steps done.
        seconds: spent in the loop, compilation and validation included.
        visible: sum over the steps of the tokens that a position saw on average.
    """

    step: int = 0
    seconds: float = 0.0
    visible: float = 0.0


class Trainer:
    """The loop with its model, optimizer and place in the data.

    Args:
        work: holds tokenizer.json; gets metrics.jsonl and the checkpoint.
        resume: go on from the checkpoint under `work`, if there is one.
    """

    def __init__(self, config: PretrainConfig, tokens: TokenFile, work: Path, *, resume: bool) -> None:
        self.config, self.tokens, self.work = config, tokens, work
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        vocab_size = len(json.loads((work / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
        self.model = cast(Any, shapes.build_model(config, vocab_size))
        self.model.to(self.device)
        self.optimizers = Optimizers(self.model, config, self.device)
        self.state = Progress()
        self.evaluations: list[tuple[int, float]] = []
        self.losses: list[tuple[int, float]] = []
        self._loss_sums: Any = shapes.loss_sums
        if config.compile and self.device.type == "cuda":
            self._loss_sums = torch.compile(shapes.loss_sums)
        if resume:
            self._load()

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: the time limit or a signal came first; a checkpoint was written.
            MedmindError: the loss is no number.
        """
        config, began = self.config, time.monotonic()
        before = self.state.seconds
        windows = training_windows(
            self.tokens.part("train"),
            context=config.context,
            batch=config.micro_batch,
            seed=config.seed,
            bos=shapes.BOS,
            start=self.state.step * self._passes,
        )
        per_step = config.batch * config.context
        parameters = sum(p.numel() for p in self.model.parameters())
        note(f"{parameters:,} parameters, {config.steps:,} steps of {per_step:,} tokens on {self.device.type}")
        with (
            Interrupt() as interrupt,
            (self.work / METRICS).open("a", encoding="utf-8") as metrics,
            progress("pretraining", config.steps * per_step, "tok") as advance,
        ):
            advance(self.state.step * per_step)
            interrupt.deferred = True
            for parts in _prefetched(windows, self.device, self.state.step, config.steps, self._passes):
                loss = self._step(parts)
                self.state.step += 1
                self.state.seconds = before + time.monotonic() - began
                last = self.state.step == config.steps
                due = last or self.state.step % config.eval_every == 0
                if due or self.state.step % _LOG_EVERY == 0:
                    self._record(metrics, loss, evaluate=due)
                advance(per_step, f"loss {self.losses[-1][1]:.3f}" if self.losses else "")
                late = config.max_minutes and time.monotonic() - began > config.max_minutes * 60
                stop = not last and (interrupt.requested or late)
                if last or stop or self.state.step % config.checkpoint_every == 0:
                    self._finite(loss)  # a broken state must not take the place of a whole one
                    self._save()
                if stop:
                    raise Interrupted(f"stopped at step {self.state.step} of {config.steps}")

    @property
    def _passes(self) -> int:
        """Forward passes of an optimizer step."""
        return self.config.batch // self.config.micro_batch

    def _step(self, parts: Sequence[Windows]) -> torch.Tensor:
        """One optimizer step over `parts`; returns the mean loss per predicted token, on the device."""
        config = self.config
        count = sum(part.predicted for part in parts)
        total = torch.zeros((), device=self.device)
        for part in parts:
            with shapes.autocast(self.device):
                loss, nll = self._loss_sums(
                    self.model, part.ids, part.targets, part.positions, part.bounds, config.context, config.z_loss
                )
            (loss / count).backward()
            total += nll
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        factor = rate(
            self.state.step,
            config.steps,
            kind=config.schedule,
            warmup=config.warmup,
            decay=config.decay,
        )
        self.optimizers.step(factor)
        self.state.visible += sum(part.visible for part in parts) / len(parts)
        return total / count

    def _finite(self, loss: torch.Tensor) -> float:
        value = float(loss)
        if not math.isfinite(value):
            raise MedmindError(f"the loss is {value} at step {self.state.step}", "lower --lr and start again")
        return value

    def _record(self, metrics: Any, loss: torch.Tensor, *, evaluate: bool) -> None:
        value = self._finite(loss)
        seen = self.state.step * self.config.batch * self.config.context
        line: dict[str, float] = {"step": self.state.step, "loss": value, "tokens": seen, "seconds": self.state.seconds}
        self.losses.append((self.state.step, value))
        if evaluate:
            found = validation.measure(self.model, self.tokens, self.config)
            line["bits_per_byte"] = found.whole.bits_per_byte
            self.evaluations.append((self.state.step, line["bits_per_byte"]))
            note(f"step {self.state.step}: loss {value:.3f}, validation {line['bits_per_byte']:.4f} bits per byte")
        metrics.write(json.dumps(line) + "\n")
        metrics.flush()

    def _save(self) -> None:
        from safetensors.torch import save_file

        with atomic_directory(self.work / "checkpoint") as partial:
            weights = {name: p.detach().contiguous() for name, p in self.model.named_parameters()}
            save_file(weights, partial / "weights.safetensors")
            self.optimizers.save(partial)
            write_json(partial / "state.json", asdict(self.state) | {"digest": self.tokens.digest})

    def _load(self) -> None:
        from safetensors.torch import load_file

        place = self.work / "checkpoint"
        if (place / "state.json").exists():
            saved = read_json(place / "state.json")
            if saved.pop("digest") != self.tokens.digest:
                raise MedmindError(f"{place} was made from another text", "resume with the text it was started with")
            self.state = Progress(**saved)
            weights = load_file(place / "weights.safetensors")
            for name, parameter in self.model.named_parameters():
                parameter.data.copy_(weights[name])
            self.optimizers.load(place, self.device)
        lines = forget_after(self.work / METRICS, self.state.step)
        self.losses = [(line["step"], line["loss"]) for line in lines]
        self.evaluations = [(line["step"], line["bits_per_byte"]) for line in lines if "bits_per_byte" in line]


def _prefetched(
    windows: Iterator[Windows], device: torch.device, start: int, stop: int, passes: int
) -> Iterator[list[Windows]]:
    """What each step goes through, on `device`; that of the next step is copied while the last one is worked on."""

    def ready() -> list[Windows]:
        return [next(windows).to(device) for _ in range(passes)]

    following = ready() if start < stop else []
    for step in range(start, stop):
        yield following
        following = ready() if step + 1 < stop else []
