"""One measurement from its settings to its document. Knows the order of things; what computes a step lies elsewhere."""

import math
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch

from medmind import base as bases
from medmind import console, hub
from medmind.artifacts import read_json
from medmind.base import EMBEDDED_NAME, Base, safetensors_header, weight_files
from medmind.errors import one_line
from medmind_train import hardware, lora, sizes
from medmind_train.fused.shape import Unsupported
from medmind_train.hardware import Dtype, Hardware
from medmind_train.step import feed, matmul, meter, peers, shapes
from medmind_train.step.config import StepConfig, budget
from medmind_train.step.document import (
    SCHEMA,
    Conditions,
    Memory,
    Mode,
    Status,
    StepDocument,
    Timing,
    Work,
)
from medmind_train.step.feed import Fed
from medmind_train.step.stepper import Stepper

_PACKAGES = ("medmind", "torch", "transformers", "peft", "bitsandbytes", "triton", "liger_kernel", "unsloth")
_ENVIRONMENT = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "OMP_NUM_THREADS", "CUDA_LAUNCH_BLOCKING")
_REASON = 300
"""Characters of a library's message that are kept."""


def run(config: StepConfig) -> StepDocument:
    """Measure what `config` says; memory that does not suffice is a finding, not an error.

    Raises:
        MedmindError: a base, data or settings that do not serve.
    """
    driver = meter.ask_driver() if config.device != "cpu" else meter.Driver()
    machine = hardware.describe(config.device)
    dtype = hardware.compute_dtype(machine, config.dtype)
    reached = _Reached(config, machine, dtype, driver)
    if config.mode == "matmul":
        samples = max(config.steps, 20)
        found = matmul.rate(machine.device, dtype, samples=samples, warmup=max(config.warmup, 5), seed=config.seed)
        return reached.document("measured", "", rate=found)
    if missing := peers.absent(config.mode, machine.device):
        return reached.document(*missing)
    base = _base(config, machine)
    reached.know(base)
    reached.meter.begin(None if config.cap is None else sizes.parse("--cap", config.cap))
    fed = feed.batches(config, base, int(read_json(base.path / "config.json")["vocab_size"]))
    return reached.document(*_attempt(reached, base, fed))


def _attempt(reached: "_Reached", base: Base, fed: list[Fed]) -> tuple[Status, str]:
    """Load and step; what came of it, and why."""
    try:
        reached.measure(base, fed)
    except Unsupported as error:
        return "unsupported", str(error)
    except Exception as error:
        if meter.is_out_of_memory(error):
            return "out of memory", f"while {reached.doing}: {_short(error)}"
        if not peers.is_foreign(reached.config.mode):
            raise
        return "failed", f"while {reached.doing}: {type(error).__name__}: {_short(error)}"
    assert reached.timing
    if not math.isfinite(reached.timing.loss_first + reached.timing.loss_last):
        reached.timing = None
        return "failed", "the loss is not finite"
    return "measured", ""


class _Reached:
    """What is known so far, so that a run that stops early still tells it."""

    def __init__(self, config: StepConfig, machine: Hardware, dtype: Dtype, driver: meter.Driver) -> None:
        self.config = config
        self.machine = machine
        self.dtype = dtype
        self.driver = driver
        self.meter = meter.Meter(machine.device, driver)
        self.doing = "loading"
        self.parameters = self.linear = 0
        self.stepper: Stepper | None = None
        self.load_seconds: float | None = None
        self.timing: Timing | None = None

    def know(self, base: Base) -> None:
        """Count the weights of `base`."""
        sizes = {
            name: math.prod(entry["shape"])
            for shard in weight_files(base.path)
            for name, entry in safetensors_header(shard).items()
        }
        self.parameters = sum(sizes.values())
        self.linear = sum(sizes[f"{layer}.weight"] for layer in lora.linear_layers(base.path))

    def measure(self, base: Base, fed: list[Fed]) -> None:
        """Load and step."""
        config = self.config
        began = time.perf_counter()
        device, dtype = self.machine.device, self.dtype
        stepper: Stepper
        if config.mode == "fused":
            from medmind_train.step import ours

            stepper = ours.fused_stepper(base, config, self.machine, dtype)
        else:
            stepper = peers.build(base, config, device=device, dtype=dtype)
        self.stepper = stepper
        self.meter.end_of_loading()
        self.load_seconds = time.perf_counter() - began
        seconds: list[float] = []
        losses: list[torch.Tensor] = []
        with console.progress(f"steps ({config.mode})", len(fed), "steps") as advance:
            for number, one in enumerate(fed, 1):
                self.doing = f"computing step {number}"
                began = time.perf_counter()
                losses.append(stepper.step(one.batch).clone())  # a graph writes every loss to the same place
                if device == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - began)
                self.meter.sample()
                advance(1)
        self.timing = _timing(config, fed, seconds, losses)

    def document(self, status: Status, reason: str, *, rate: Any = None) -> StepDocument:
        """Everything that is known."""
        config, stepper = self.config, self.stepper
        trained = list(stepper.trainable) if stepper else None
        flags = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        return StepDocument(
            schema=SCHEMA,
            status=status,
            reason=reason,
            work=Work(
                mode=cast(Mode, config.mode),
                base=config.synthetic or config.base or EMBEDDED_NAME,
                synthetic=config.synthetic is not None,
                parameters=self.parameters,
                linear=self.linear,
                batch=config.batch,
                length=config.length,
                documents=config.documents,
                data=config.data,
                packing=None if config.data is None else config.packing,
                rank=config.rank,
                alpha=config.alpha,
                targets=config.targets,
                cap=None if config.cap is None else sizes.parse("--cap", config.cap),
                vram=str(budget(config) or config.vram),
                dtype=self.dtype,
            ),
            trained=None if trained is None else sum(one.numel() for one in trained),
            trained_bytes=None if trained is None else sum(one.numel() * one.element_size() for one in trained),
            load_seconds=self.load_seconds,
            memory=self._memory(),
            timing=self.timing,
            matmul=rate,
            conditions=Conditions(
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                device=self.machine.device,
                card=self.machine.name,
                versions=_versions(self.driver),
                flags={**flags, "threads": str(torch.get_num_threads()), **(stepper.flags if stepper else {})},
            ),
        )

    def _memory(self) -> Memory:
        return self.meter.memory(self.stepper.pinned if self.stepper else None)


def _base(config: StepConfig, machine: Hardware) -> Base:
    if config.synthetic is not None:
        assert config.scratch is not None
        tokenizer = Path(config.tokenizer) if config.tokenizer else None
        scratch = Path(config.scratch)
        path = shapes.checkpoint(
            config.synthetic, scratch, device=machine.device, seed=config.seed, tokenizer=tokenizer
        )
        base = Base(config.synthetic, "local", path)
    else:

        def fetch(repo_id: str, revision: str | None) -> tuple[Any, str]:
            return hub.fetch_model(repo_id, revision, assume_yes=False)

        base = bases.resolve(config.base or EMBEDDED_NAME, fetch=fetch)
    lora.check(base, config.targets)
    return base


def _timing(config: StepConfig, fed: list[Fed], seconds: list[float], losses: list[torch.Tensor]) -> Timing:
    counted, taken = fed[config.warmup :], seconds[config.warmup :]
    tokens, real, supervised = (
        sum(one) for one in zip(*((fed.tokens, fed.real, fed.supervised) for fed in counted), strict=True)
    )
    median = statistics.median(taken)
    # Random tokens make every step the same work, and the median forgets a hiccup; rows of data do not.
    typical = median * len(taken) if config.data is None else sum(taken)
    return Timing(
        seconds=tuple(taken),
        median=median,
        tokens=tokens,
        real=real,
        supervised=supervised,
        tokens_per_s=tokens / typical,
        supervised_per_s=supervised / typical,
        loss_first=float(losses[0]),
        loss_last=float(losses[-1]),
    )


def _versions(driver: meter.Driver) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if driver.version:
        found["driver"] = driver.version
    return found


def _short(error: BaseException) -> str:
    text = one_line(str(error)) or type(error).__name__
    return text if len(text) <= _REASON else f"{text[:_REASON]}…"
