"""Sizes of a decoder as its config.json says, and whether the fused step knows its kind. Knows no tensor, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

KINDS = ("mistral", "llama", "qwen2")
"""`model_type`s whose layers are RMSNorm, rotary attention with grouped heads, RMSNorm, SwiGLU, and nothing else."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
"""The linear layers of a decoder layer, those that read the same input together, in the order of the forward pass."""
BLOCK = 64
"""Weights of a row that share one scale in NF4."""
BLOCK2 = 256
"""Scales that share one second-level scale (double quantization)."""

_WIDEST_HEAD = 256
"""Columns of a head that flash attention takes."""
_COLUMNS = 16
"""LoRA's columns beside a matrix are padded to a multiple of this: every row begins where matrix units like it."""


def padded(rank: int) -> int:
    """Columns that adapters of together this rank take."""
    return -(-rank // _COLUMNS) * _COLUMNS


class Unsupported(ValueError):
    """Why the fused step cannot serve; the reference path can."""


@dataclass(frozen=True)
class Shape:
    """Sizes of one decoder.

    Attributes:
        hidden, ffn, layers, heads, kv_heads, head_dim, vocabulary: as in config.json.
        tied: embedding and head are one matrix.
        window: tokens that attention looks back, None: all.
        eps: of the RMS norms.
        bias: the q, k and v projections add a bias.
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    window: int | None
    eps: float
    bias: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Read the parsed config.json of a base.

        Raises:
            Unsupported: another architecture, or one of its options that the fused step does not know.
        """
        kind = config.get("model_type")
        if kind not in KINDS:
            raise Unsupported(f"its kind is {kind}, not one of {', '.join(KINDS)}")
        if config.get("hidden_act", "silu") != "silu":
            raise Unsupported(f"its activation is {config['hidden_act']}")
        for option in ("attention_bias", "mlp_bias"):
            if config.get(option):
                raise Unsupported(f"it has {option}")
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        window = config.get("sliding_window")
        if kind == "qwen2" and not config.get("use_sliding_window"):
            window = None
        elif kind == "qwen2":
            raise Unsupported("only some of its layers look through a window")
        return cls(
            hidden=hidden,
            ffn=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            window=int(window) if window and kind == "mistral" else None,
            eps=float(config.get("rms_norm_eps", 1e-6)),
            bias=kind == "qwen2",
        )

    @cached_property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Rows and columns (outputs and inputs) of each linear layer of a decoder layer, by its short name."""
        attention, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (attention, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, attention),
            "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden),
            "down_proj": (self.hidden, self.ffn),
        }

    @property
    def refusal(self) -> str:
        """Why the fused step cannot work with such sizes; empty: it can."""
        for name, (_, columns) in self.linears.items():
            if columns % BLOCK:
                return f"the rows of its {name} do not end with a block of {BLOCK}"
        if self.head_dim % 8 or self.head_dim > _WIDEST_HEAD:
            return f"flash attention takes no heads of {self.head_dim}"
        return ""

    @property
    def layer_weights(self) -> int:
        """Weights in the linear layers of one decoder layer."""
        return sum(rows * columns for rows, columns in self.linears.values())

    @property
    def parameters(self) -> int:
        """Weights of the whole model, norms and biases among them."""
        attention, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = self.layer_weights + 2 * self.hidden + (attention + 2 * keys if self.bias else 0)
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden * (1 if self.tied else 2)
