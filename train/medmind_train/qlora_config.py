"""The settings of `medmind-train qlora`: the only home of their defaults, and which recipe a machine gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from medmind.artifacts import RUNS
from medmind.base import EMBEDDED_NAME
from medmind_train import schedule as schedules
from medmind_train import sizes
from medmind_train.config import setting
from medmind_train.data import HELDOUT_SHARE, VALIDATION_SHARE

REFERENCE_BASE = "mistralai/Mistral-7B-Instruct-v0.3"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "psutil", "matplotlib")
"""What training imports."""


@dataclass(frozen=True)
class QloraConfig:
    """Defaults suit a 7B on an 8 GB card; `recipe` holds what the embedded base needs otherwise."""

    base: str | None = setting(None, "base model: hub id, local directory or 'medmind-base' (default: by hardware)")
    revision: str | None = setting(None, "branch, tag or commit of a base on the hub")
    data: str | None = setting(
        None, "'medquad', 'sample', a file or a folder (default: medquad; embedded base: sample)"
    )
    system: str = setting("", "system prompt put before every conversation that has none")
    context: int = setting(1024, "longest example in tokens; what is longer is cut", minimum=8)
    heldout_share: float = setting(HELDOUT_SHARE, "share of the rows held out, split off by focus", above=0, below=1)
    recorded: str | None = setting(
        None, "a run, or its heldout.jsonl: what it held out stays held out, and what joins it is not trained on"
    )
    limit: int | None = setting(None, "use at most this many rows", minimum=2)
    validation_share: float = setting(
        VALIDATION_SHARE, "share of the rows set apart for choices while training", minimum=0, below=1
    )
    eval_rows: int = setting(256, "held-out rows, and validation rows, to evaluate on; 0: all", minimum=0)
    eval_every: int = setting(
        0, "evaluate on the validation rows every so many steps; 0: not while training, unless to choose by", minimum=0
    )
    patience: int = setting(
        0, "end training after so many evaluations without a better validation loss; 0: never", minimum=0
    )
    keep: str = setting(
        "auto",
        "which adapter is kept, that of the lowest validation loss or the last; auto is best with --patience",
        choices=("auto", "best", "last"),
    )
    targets: str = setting(
        "all-linear", "layers that get an adapter: qv | attention | mlp | all-linear | names apart by commas"
    )
    rank: int = setting(16, "LoRA rank", minimum=1, maximum=4096)
    alpha: float = setting(32.0, "LoRA alpha; the adapter is scaled by alpha / rank", above=0)
    rank_pattern: Mapping[str, int] | None = setting(
        None, "another rank for some layers, by name or regular expression; the first that matches counts", minimum=1
    )
    alpha_pattern: Mapping[str, float] | None = setting(None, "another alpha for some layers, likewise", above=0)
    rslora: bool = setting(False, "scale by alpha / √rank instead (rsLoRA)")
    dora: bool = setting(False, "train the magnitude of each row apart from its direction (DoRA)")
    lora_plus: float = setting(1.0, "learning rate of LoRA's B as a multiple of A's (LoRA+); 1: the same", minimum=1)
    dropout: float = setting(0.0, "LoRA dropout", minimum=0, below=1)
    lr: float = setting(2e-4, "peak learning rate", above=0, maximum=1)
    schedule: str = setting("cosine", "learning rate after the warm-up", choices=schedules.KINDS)
    warmup: float = setting(0.03, "share of the steps over which the learning rate rises", minimum=0, below=1)
    weight_decay: float = setting(0.0, "AdamW weight decay", minimum=0)
    grad_clip: float = setting(1.0, "largest gradient norm; 0: no clipping", minimum=0)
    optimizer: str = setting(
        "auto", "auto is adamw8bit on a CUDA card, else adamw", choices=("auto", "adamw", "adamw8bit")
    )
    epochs: float = setting(1.0, "passes over the training rows", above=0)
    max_steps: int | None = setting(None, "stop after this many optimizer steps, whatever --epochs says", minimum=1)
    batch: int = setting(1, "rows per forward pass: examples or, with --packing, packed rows", minimum=1)
    accumulate: int = setting(
        16, "forward passes per optimizer step; the effective batch is --batch × --accumulate rows", minimum=1
    )
    packing: bool | None = setting(
        None, "fill each row with examples up to --context tokens, kept apart (default: on for a CUDA card)"
    )
    rising_steps: int = setting(
        50, "stop when the smoothed loss has been far above its best for so many steps; 0: never", minimum=0
    )
    rising_factor: float = setting(1.5, "far above is more than this many times the best", above=1)
    answer_rows: int = setting(
        16, "held-out questions answered after training, to see whether answers end; 0: none", minimum=0
    )
    sample_answers: int = setting(
        3, "of those, how many the base answers as well, for the report; 0: none", minimum=0, maximum=64
    )
    price_per_hour: float | None = setting(None, "what an hour of this machine costs, for the report", minimum=0)
    seed: int = setting(42, "seed of adapter, data order and dropout", minimum=0, maximum=2**32 - 1)
    dtype: str = setting(
        "auto", "compute type; auto is by hardware", choices=("auto", "bfloat16", "float16", "float32")
    )
    device: str = setting("auto", "where to train", choices=("auto", "cuda", "cpu"))
    kernels: str = setting(
        "auto",
        "who computes a step: our fused one, or transformers and PEFT; auto is fused where card and base allow it",
        choices=("auto", "fused", "reference"),
    )
    vram: str = setting(
        "auto",
        "memory of the card that the fused step may take, as 6GiB: what fits is kept, the rest moved or recomputed",
    )
    gradient_checkpointing: bool | None = setting(
        None, "recompute activations to save memory, with --kernels reference (default: on for a CUDA card)"
    )
    shard: bool = setting(
        False, "lay the base's layers in pieces over the processes of torchrun (FSDP), with --kernels reference"
    )
    checkpoint_every: int = setting(50, "steps between checkpoints; 0: only when interrupted and at the end", minimum=0)
    log_to: str | None = setting(
        None, "show the metrics elsewhere as well: tensorboard | wandb, or both apart by a comma"
    )
    out: str = setting(str(RUNS), "folder of the run directories")
    name: str | None = setting(None, "name of the run (default: base-data-date-time)")


def vram(config: QloraConfig) -> int | None:
    """Bytes of `--vram`; None: auto.

    Raises:
        MedmindError: no size.
    """
    return None if config.vram == "auto" else sizes.parse("--vram", config.vram)


_EMBEDDED: Mapping[str, Any] = MappingProxyType(
    {
        "data": "sample",
        "context": 512,
        "lr": 1e-3,
        "epochs": 3.0,
        "batch": 8,
        "accumulate": 1,
        # On a CPU packed rows cost as much or more (attention runs over the whole row), and one recipe for every
        # machine gives one loss curve.
        "packing": False,
        # A model this small gains nothing from bf16, and the same numbers on every machine are worth having.
        "dtype": "float32",
    }
)


def recipe(base: str) -> Mapping[str, Any]:
    """The settings that `base` wants otherwise than the defaults; YAML and flags win over them."""
    return _EMBEDDED if base == EMBEDDED_NAME else {"data": "medquad"}
