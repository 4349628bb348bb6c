"""The settings of `medmind-train step`: the only home of their defaults. Imports nothing heavy."""

from dataclasses import dataclass

from medmind.errors import MedmindError
from medmind_train import sizes
from medmind_train.config import setting
from medmind_train.step.document import MODES

PLACEMENTS = ("lean", "stream", "host", "card", "all")
"""Budgets by name: the least, the least with the base on the host, or what every layer keeps."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "psutil")
"""What a step imports."""


@dataclass(frozen=True)
class StepConfig:
    """What to measure. Without `base` and `synthetic`: the embedded base."""

    mode: str = setting("fused", "who computes the step; matmul is the rate a step is held against", choices=MODES)
    base: str | None = setting(None, "base model: hub id, local directory or 'medmind-base'")
    synthetic: str | None = setting(
        None, "instead of --base: random weights of this shape, mistral-7b or a config.json; needs --scratch"
    )
    scratch: str | None = setting(None, "folder for the random weights; they are kept and used again")
    tokenizer: str | None = setting(
        None, "folder whose tokenizer goes along with random weights (default: the embedded base's)"
    )
    batch: int = setting(1, "rows of a step", minimum=1)
    length: int = setting(2048, "tokens of a row", minimum=8)
    documents: int = setting(1, "documents of a row of random tokens, none of which sees another", minimum=1)
    data: str | None = setting(None, "rows of 'medquad', 'sample', a file or a folder instead of random tokens")
    packing: bool = setting(True, "with --data: packed rows, or one example a row in random order, padded")
    rank: int = setting(16, "LoRA rank", minimum=1, maximum=4096)
    alpha: float = setting(32.0, "LoRA alpha", above=0)
    targets: str = setting("all-linear", "layers that get an adapter: qv | attention | mlp | all-linear | names")
    steps: int = setting(8, "steps to measure", minimum=1)
    warmup: int = setting(3, "steps before these", minimum=0)
    cap: str | None = setting(None, "bytes torch may reserve on the card, as 5.0GiB; going over them fails")
    vram: str = setting(
        "auto", f"memory budget of the fused step: auto, bytes as 6GiB, or by name: {' | '.join(PLACEMENTS)}"
    )
    device: str = setting("auto", "where to compute", choices=("auto", "cuda", "cpu"))
    dtype: str = setting(
        "auto", "compute type; auto is by hardware", choices=("auto", "bfloat16", "float16", "float32")
    )
    seed: int = setting(42, "seed of weights, tokens and order", minimum=0, maximum=2**32 - 1)


def check(config: StepConfig) -> None:
    """Refuse settings that contradict each other.

    Raises:
        MedmindError: names them.
    """
    if config.base is not None and config.synthetic is not None:
        raise MedmindError("--base and --synthetic exclude each other", "give one of them")
    if config.synthetic is not None and config.scratch is None:
        raise MedmindError("--synthetic needs a folder for its weights", "give --scratch DIR")
    if config.data is not None and config.documents != 1:
        raise MedmindError("--documents is of random tokens, --data has documents of its own", "leave one out")
    if config.length // config.documents < 2:
        raise MedmindError(
            f"--documents {config.documents} leaves less than 2 tokens each in rows of {config.length}",
            "give fewer, or a larger --length",
        )
    if config.cap is not None:
        sizes.parse("--cap", config.cap)
    budget(config)


def budget(config: StepConfig) -> int | None:
    """Bytes of `--vram`; None: auto, or a name."""
    return None if config.vram in ("auto", *PLACEMENTS) else sizes.parse("--vram", config.vram)
