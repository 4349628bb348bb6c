"""The settings of a chat and their defaults. Knows nothing of how they are carried out."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from medmind.errors import MedmindError
from medmind_runtime.engine.loading import GpuLayers, LoadMode

NOTICE = (
    "medmind: a computer program on this machine, not a doctor. It can be wrong. "
    "In an emergency call your local emergency number now."
)
"""What every session opens with."""


KvType = Literal["f16", "bf16", "q8_0", "q4_0"]
"""KV caches to choose from; the engine knows more, of which none is better than these."""


@dataclass(frozen=True)
class ChatConfig:
    """Settings of a chat; None leaves a choice to the model file or the machine.

    Attributes:
        system: system prompt; None takes `medmind.system_prompt` of the model file, empty is none.
        temperature: 0 always takes the likeliest word, so that the same question gets the same answer.
        max_tokens: of one answer.
        context, threads, kv_type, load_mode, adapter, gpu_layers: see `Engine.load`; no kv_type is f16, or bf16
            where guesses are exact with that alone.
        markdown: whether answers are drawn as Markdown where the terminal can.
        library: file of `medmind-chat index` to answer from; None answers without sources.
        lookup: whether tokens are guessed from the text at hand where that gives the same answers.
        read_ahead: whether a terminal chat evaluates what it knows of the next prompt while somebody types.
        grammar: GBNF that answers must follow; empty for none.
        history: file that keeps what is typed; None keeps nothing.
    """

    system: str | None = None
    temperature: float = 0.0
    seed: int | None = None
    max_tokens: int = 512
    context: int | None = None
    threads: int | None = None
    kv_type: KvType | None = None
    load_mode: LoadMode = "auto"
    adapter: Path | None = None
    gpu_layers: GpuLayers = "auto"
    markdown: bool = True
    history: Path | None = None
    library: Path | None = None
    grammar: str = ""
    lookup: bool = True
    read_ahead: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "ChatConfig":
        """The settings among the options of a command, by their names; `gpu_layers` as text.

        Raises:
            MedmindError: `gpu_layers` is no number of layers.
        """
        settings = {field.name: options[field.name] for field in fields(cls) if field.name in options}
        return cls(**{**settings, "gpu_layers": gpu_layers(settings["gpu_layers"])})


def token_file() -> Path:
    """Where the token of `serve` lies unless told otherwise."""
    settings = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME")
    return (Path(settings) if settings else Path.home() / ".config") / "medmind" / "serve-token"


def gpu_layers(text: str) -> GpuLayers:
    """What --gpu-layers says: `auto`, or how many.

    Raises:
        MedmindError: neither.
    """
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdecimal()):
        raise MedmindError(f"--gpu-layers is {text!r}", "give auto, or how many layers as a whole number")
    return int(text)
