"""What a benchmark of training steps will run: its settings and its cells, in their order. Starts no cell."""

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from medmind.errors import MedmindError
from medmind_benchmarks.training.results import Fill, Shape
from medmind_train.step.document import MODES, OURS, Mode

STEP = (sys.executable, "-P", "-c", "from medmind_train.cli import main; main()")
"""`medmind-train` of this very installation; -P: a file in the current directory must not stand in for a library."""
_STEPS: tuple[Mode, ...] = tuple(mode for mode in MODES if mode != "matmul")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `medmind-bench train`, and the only home of their defaults.

    Attributes:
        modes: who computes, apart by commas, in the order of the tables.
        shapes: batch × length, apart by commas.
        base, synthetic, scratch, tokenizer: as `medmind-train step` takes them.
        rank, targets: of the adapter.
        cap, vram: of the card, as `medmind-train step` takes them.
        steps, warmup: of a cell.
        repeats: cells of one mode at one shape.
        data: rows to measure packed against padded batches on; None: random tokens only.
        timeout: seconds that a cell may take.
        price: of an hour on this machine, in any currency; None: no cost is told.
    """

    modes: str = "fused,reference,usual,liger,unsloth"
    shapes: str = "1x1024,1x2048,4x1024"
    base: str | None = None
    synthetic: str | None = None
    scratch: str | None = None
    tokenizer: str | None = None
    rank: int = 16
    targets: str = "all-linear"
    cap: str | None = None
    vram: str = "auto"
    device: str = "auto"
    steps: int = 8
    warmup: int = 3
    repeats: int = 3
    data: str | None = None
    timeout: float = 900.0
    price: float | None = None


@dataclass(frozen=True)
class Cell:
    """One mode at one shape over one kind of rows: what is measured `repeats` times, each in a fresh process."""

    mode: Mode
    shape: Shape
    fill: Fill


@dataclass(frozen=True)
class Plan:
    """A benchmark that can start: groups of cells that are compared with each other, and run in turn."""

    config: TrainingConfig
    groups: tuple[tuple[Cell, ...], ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All of them, in order."""
        return tuple(cell for group in self.groups for cell in group)

    def command(self, cell: Cell, seed: int) -> list[str]:
        """The flags of `medmind-train step` for a cell."""
        config = self.config
        flags = self._common(cell.mode, config.steps, config.warmup, seed)
        flags += ["--batch", f"{cell.shape.batch}", "--length", f"{cell.shape.length}"]
        flags += ["--rank", f"{config.rank}", "--targets", config.targets, "--vram", config.vram]
        for name in ("base", "synthetic", "tokenizer", "cap"):
            if value := getattr(config, name):
                flags += [f"--{name}", value]
        if config.scratch:
            flags += ["--scratch", config.scratch]
        if cell.fill != "random":
            flags += ["--data", str(config.data), "--packing" if cell.fill == "packed" else "--no-packing"]
        return flags

    def matmul(self) -> list[str]:
        """The flags for the rate of matrix products."""
        return self._common("matmul", 20, 5, 0)

    def _common(self, mode: str, steps: int, warmup: int, seed: int) -> list[str]:
        common = ["--mode", mode, "--device", self.config.device, "--steps", f"{steps}", "--warmup", f"{warmup}"]
        return ["step", "--json", *common, "--seed", f"{seed}"]


def make(config: TrainingConfig) -> Plan:
    """Check what can be checked before the first cell.

    Raises:
        MedmindError: a mode or shape that is none, settings that contradict each other.
    """
    modes, shapes = _modes(config.modes), _shapes(config.shapes)
    if config.base and config.synthetic:
        raise MedmindError("--base and --synthetic exclude each other", "give one of them")
    if config.synthetic and not config.scratch:
        raise MedmindError("--synthetic needs a folder for its weights", "give --scratch DIR")
    groups = [tuple(Cell(mode, shape, "random") for mode in modes) for shape in shapes]
    if config.data:
        groups += [
            tuple(Cell(mode, shape, "packed" if mode in OURS else "padded") for mode in modes) for shape in shapes
        ]
    return Plan(config, tuple(groups))


def _modes(text: str) -> tuple[Mode, ...]:
    found: list[Mode] = []
    for word in _words("--modes", text):
        mode = next((one for one in _STEPS if one == word), None)
        if mode is None:
            near = difflib.get_close_matches(word, _STEPS, n=1, cutoff=0)[0]
            raise MedmindError(f"--modes cannot be '{word}'", f"choose from {', '.join(_STEPS)}; nearest: {near}")
        found.append(mode)
    return tuple(dict.fromkeys(found))


def _shapes(text: str) -> tuple[Shape, ...]:
    found = []
    for word in _words("--shapes", text):
        match = re.fullmatch(r"(\d{1,6})\s*[x×*]\s*(\d{1,7})", word)
        if match is None or int(match[1]) < 1 or int(match[2]) < 8:
            raise MedmindError(f"--shapes cannot be '{word}'", "write BATCHxLENGTH, as 4x1024; a length is at least 8")
        found.append(Shape(int(match[1]), int(match[2])))
    return tuple(dict.fromkeys(found))


def _words(flag: str, text: str) -> Sequence[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise MedmindError(f"{flag} '{text}' has an empty entry", "write them apart by commas")
    return words
