"""What a chain will do, checked before the slow work: run, files, held-out rows, memory. Starts no process."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import digests
from medmind.artifacts import HELDOUT, is_embedded_run, models_in, newest_model, read_run, run_named
from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_benchmarks import examples, machine
from medmind_benchmarks.model_file import ModelFile, read
from medmind_benchmarks.need import process_bytes
from medmind_benchmarks.sources import is_base
from medmind_runtime.engine.threads import physical_cores

FOLDER = "chain"
_MOST_TOKENS = 8192


@dataclass(frozen=True)
class ChainConfig:
    """What to measure.

    Attributes:
        rows: held-out rows at most; 0: all.
        tokens: answer tokens at most. The trained model's log-probabilities take 4 bytes × vocabulary each on the disk.
        device, dtype: as `medmind-train score` takes them.
        threads: of llama.cpp; None: the physical cores.
        timeout: seconds that one step may take.
    """

    rows: int = 0
    tokens: int = _MOST_TOKENS
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    timeout: float = 3600.0


@dataclass(frozen=True)
class File:
    """A GGUF of the run; `refusal` says why it will not be measured, and is empty when it will."""

    label: str
    model: ModelFile
    refusal: str


@dataclass(frozen=True)
class Plan:
    """A chain that can start.

    Attributes:
        name: how `medmind-train score` finds the run.
        files: from the most precise to the least.
        left_out: names of files of the untuned base, which `quants` compares with: they are no step of this chain.
        base: the base, where the run's name for it does not lead there; None otherwise.
    """

    name: str
    manifest: Mapping[str, Any]
    files: tuple[File, ...]
    left_out: tuple[str, ...]
    heldout: Path
    out: Path
    base: Path | None
    config: ChainConfig
    threads: int


def make(run: Path | None, heldout: Path | None, out: Path | None, base: Path | None, config: ChainConfig) -> Plan:
    """Find everything that the chain needs.

    Raises:
        MedmindError: no finished run, no GGUF of it, no held-out rows.
    """
    folder = run_named(str(run)) if run else newest_model().parent
    carried = is_embedded_run(folder)
    manifest = read_run(digests.verified(folder.name) if carried else folder)
    beside = list(map(read, models_in(folder, "f16 q8_0 q4_k_m")))
    bases = [model for model in beside if is_base(model, beside)]
    models = sorted((one for one in beside if one not in bases), key=lambda one: one.precision, reverse=True)
    rows = heldout or folder / HELDOUT
    if not rows.is_file():
        raise MedmindError(
            f"{rows} does not exist" if heldout else f"there is no held-out set: no {HELDOUT} in {folder}",
            "give one with --heldout FILE, one JSON object with 'messages' a line; "
            "medmind-train data show SOURCE --out DIR makes one",
        )
    examples.read_rows(rows)
    shared = Counter(model.quant for model in models)
    available, _ = machine.available_memory()
    return Plan(
        name=folder.name if carried else str(folder),
        manifest=manifest,
        files=tuple(
            File(
                model.quant if shared[model.quant] == 1 else model.path.name,
                model,
                _refusal(model, manifest, available),
            )
            for model in models
        ),
        left_out=tuple(model.path.name for model in bases),
        heldout=rows,
        out=out or folder / FOLDER,
        base=base,
        config=config,
        threads=config.threads or physical_cores(),
    )


def _refusal(model: ModelFile, manifest: Mapping[str, Any], available: int) -> str:
    adapter = model.metadata.get("medmind.adapter.digest")
    if adapter != manifest["adapter"]["digest"]:
        whose = "an adapter that is not this run's" if adapter else "no adapter"
        return f"it was made of {whose}"
    needed = process_bytes(model, int(manifest["context"]))
    if needed > available:
        return f"it needs {human_bytes(needed)} of memory, and {human_bytes(available)} are free"
    return ""
