"""The settings of `medmind-train score`: the only home of their defaults. Imports nothing heavy."""

from dataclasses import dataclass

from medmind.errors import MedmindError
from medmind_train.config import setting
from medmind_train.score.document import STAGES

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "psutil", "numpy")
"""What scoring imports."""


@dataclass(frozen=True)
class ScoreConfig:
    """What to score of a run."""

    stage: str = setting(
        "adapter",
        "adapter is the 4-bit base with the adapter, as trained; base and merged have the base's own 16-bit type; "
        "merged-nf4 too, merged onto what 4 bits leave of the base",
        choices=STAGES,
    )
    base: str | None = setting(None, "the base, where it is not found under the run's name for it")
    heldout: str | None = setting(None, "held-out rows, JSON lines with 'messages' (default: those of the run)")
    rows: int = setting(0, "held-out rows at most; 0: all", minimum=0)
    tokens: int = setting(16384, "answer tokens at most: as many rows as they allow", minimum=1)
    write: str | None = setting(
        None, "file.npy for the adapter's log-probabilities; the tokens go into file.json beside it"
    )
    against: str | None = setting(None, "such a file: score its tokens, and tell the divergence from what is in it")
    device: str = setting("auto", "where to compute", choices=("auto", "cuda", "cpu"))
    dtype: str = setting(
        "auto",
        "compute type; auto is float32, but for the adapter on a CUDA card that of its training",
        choices=("auto", "bfloat16", "float16", "float32"),
    )


def check(config: ScoreConfig) -> None:
    """Refuse settings that contradict each other.

    Raises:
        MedmindError: names them.
    """
    if config.write and config.against:
        raise MedmindError("--write and --against exclude each other", "give one of them")
    if config.write and config.stage != "adapter":
        raise MedmindError(
            f"--write keeps what the trained model says, not --stage {config.stage}", "give --stage adapter"
        )
    for flag, path in (("--write", config.write), ("--against", config.against)):
        if path and not path.endswith(".npy"):
            raise MedmindError(f"{flag} {path} does not end in .npy", "name it so; the tokens lie beside it as .json")
    if config.against and (config.heldout or config.rows):
        raise MedmindError("--against brings its own rows", "leave --heldout and --rows out")
