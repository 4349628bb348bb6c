"""What other programs leave behind, by the files in a folder: to name what was given in place of a medmind run.

Knows file names; reads no file.
"""

from pathlib import Path

_MARKS = (
    (("trainer_state.json",), "a checkpoint of transformers' Trainer"),
    (("checkpoint-*/trainer_state.json",), "an output folder of transformers' Trainer"),
    (("global_step*", "zero_to_fp32.py"), "a checkpoint of DeepSpeed"),
    (("*.distcp", "*/*.distcp"), "a checkpoint of torch.distributed"),
    (("adapter_config.json",), "a PEFT adapter"),
    (("config.json",), "a model"),
    (("*.ckpt",), "a folder of Lightning checkpoints"),
    (("*.gguf",), "a folder of GGUF models"),
)


def kind(path: Path) -> str | None:
    """What a file or folder is, in words; None where nothing tells."""
    if not path.is_dir():
        return "a file" if path.exists() else None
    return next((what for marks, what in _MARKS if any(any(path.glob(mark)) for mark in marks)), None)
