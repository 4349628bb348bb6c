"""The llama architecture (Llama, Mistral) in transformers' and in llama.cpp's words: tensor names, shapes, row orders.

Knows config.json and llama.cpp's conversion/llama.py; reads no weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmind.errors import MedmindError
from medmind_convert.config_fields import Fields


@dataclass(frozen=True)
class Placement:
    """Where one tensor of the base goes.

    Attributes:
        source: its name in transformers.
        target: its name in llama.cpp.
        shape: `(rows, columns)` or `(length,)`.
        heads: number of heads whose rows llama.cpp wants reordered, or 0.
    """

    source: str
    target: str
    shape: tuple[int, ...]
    heads: int = 0

    @property
    def is_matrix(self) -> bool:
        """Whether it may be stored in 16 bits or quantized; vectors stay F32."""
        return len(self.shape) == 2

    def order(self) -> NDArray[np.intp]:
        """Which source row stands at each target row.

        transformers rotates the two halves of a head against each other, llama.cpp neighbouring rows: the rows of a
        head are interleaved (`LlamaModel.permute` in llama.cpp's conversion/llama.py).
        """
        rows = np.arange(self.shape[0], dtype=np.intp)
        if not self.heads:
            return rows
        return np.ascontiguousarray(rows.reshape(self.heads, 2, -1).swapaxes(1, 2)).reshape(-1)


@dataclass(frozen=True)
class Architecture:
    """The dimensions of a Llama or Mistral model.

    Attributes:
        layers, hidden, feed_forward, heads, heads_kv, head_dim, vocab, context: counts.
        eps: of the RMS norms.
        rope_base: of the rotary embedding.
        rope_factor: of linear position scaling, 1 without.
        tied: whether the output layer is the embedding.
        attention_bias, mlp_bias: whether the linear layers have biases.
        window: sliding attention window in tokens, or None.
        stop_ids: token ids that end a generation, from generation_config.json and config.json.
        name: llama.cpp's, as in `general.architecture`.
    """

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    heads_kv: int
    head_dim: int
    vocab: int
    context: int
    eps: float
    rope_base: float
    rope_factor: float
    tied: bool
    attention_bias: bool
    mlp_bias: bool
    window: int | None
    stop_ids: tuple[int, ...]
    name: str = "llama"

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """Every tensor of the model, in the order of the file."""
        q, kv, h, ff = self.heads * self.head_dim, self.heads_kv * self.head_dim, self.hidden, self.feed_forward
        found = [Placement("model.embed_tokens.weight", "token_embd.weight", (self.vocab, h))]
        if not self.tied:
            found.append(Placement("lm_head.weight", "output.weight", (self.vocab, h)))
        found.append(Placement("model.norm.weight", "output_norm.weight", (h,)))
        linear = (
            ("self_attn.q_proj", "attn_q", q, h, self.heads, self.attention_bias),
            ("self_attn.k_proj", "attn_k", kv, h, self.heads_kv, self.attention_bias),
            ("self_attn.v_proj", "attn_v", kv, h, 0, self.attention_bias),
            ("self_attn.o_proj", "attn_output", h, q, 0, self.attention_bias),
            ("mlp.gate_proj", "ffn_gate", ff, h, 0, self.mlp_bias),
            ("mlp.up_proj", "ffn_up", ff, h, 0, self.mlp_bias),
            ("mlp.down_proj", "ffn_down", h, ff, 0, self.mlp_bias),
        )
        for layer in range(self.layers):
            here, there = f"model.layers.{layer}", f"blk.{layer}"
            found.append(Placement(f"{here}.input_layernorm.weight", f"{there}.attn_norm.weight", (h,)))
            found.append(Placement(f"{here}.post_attention_layernorm.weight", f"{there}.ffn_norm.weight", (h,)))
            for source, target, rows, columns, heads, bias in linear:
                found.append(Placement(f"{here}.{source}.weight", f"{there}.{target}.weight", (rows, columns), heads))
                if bias:
                    found.append(Placement(f"{here}.{source}.bias", f"{there}.{target}.bias", (rows,), heads))
        return tuple(found)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(placement.shape)) for placement in self.placements)

    def is_spare(self, name: str) -> bool:
        """Whether a base may hold a tensor that llama.cpp has no use for: tied copies and precomputed frequencies."""
        return name.endswith(".rotary_emb.inv_freq") or (self.tied and name == "lm_head.weight")

    def match(self, shapes: Mapping[str, tuple[int, ...]], where: Path) -> None:
        """Check that a base's tensors are this architecture's, none missing, none left over.

        Raises:
            MedmindError: the first tensor that is missing, left over or of another shape.
        """
        for placement in self.placements:
            shape = shapes.get(placement.source)
            if shape is None:
                raise MedmindError(f"{where} lacks the tensor {placement.source}", "download or copy it again")
            if tuple(shape) != placement.shape:
                raise MedmindError(
                    f"{placement.source} in {where} is {tuple(shape)}, its config.json makes it {placement.shape}",
                    "config and weights are not of the same model",
                )
        known = {placement.source for placement in self.placements}
        extra = sorted(name for name in shapes if name not in known and not self.is_spare(name))
        if extra:
            raise MedmindError(
                f"{where} holds the tensor {extra[0]}, which the llama architecture does not have",
                "medmind converts plain Llama and Mistral models",
            )


def read(path: Path) -> Architecture:
    """The architecture of a base directory whose config `medmind.base.check` accepted.

    Raises:
        MedmindError: a dimension is missing or impossible, or the config asks for something llama.cpp's llama
            architecture or this conversion does not do, by name.
    """
    file = path / "config.json"
    config = Fields.read(file)
    if config.values.get("quantization_config"):
        raise MedmindError(f"{path} is quantized already", "give the unquantized base with --base")
    activation = config.text("hidden_act") or "silu"
    if activation not in ("silu", "swish"):
        raise MedmindError(f"{file} uses the activation {activation}", "llama.cpp's llama has silu only")
    heads, hidden = config.count("num_attention_heads"), config.count("hidden_size")
    heads_kv = config.count("num_key_value_heads", heads)
    head_dim = config.count("head_dim", hidden // heads)
    if heads % heads_kv or head_dim % 2 or not head_dim:
        raise MedmindError(
            f"{file} gives {heads} heads, {heads_kv} key heads, {head_dim} dimensions a head", "it is broken"
        )
    if "rms_norm_eps" in config.values and config.values["rms_norm_eps"] is None:  # not missing: transformers fails
        config.refuse("rms_norm_eps", "a number above 0")
    rope_base, rope_factor = _rope(config)
    context, vocab = config.count("max_position_embeddings"), config.count("vocab_size")
    window = config.count("sliding_window", context) if config.values.get("sliding_window") is not False else context
    return Architecture(
        layers=config.count("num_hidden_layers"),
        hidden=hidden,
        feed_forward=config.count("intermediate_size"),
        heads=heads,
        heads_kv=heads_kv,
        head_dim=head_dim,
        vocab=vocab,
        context=context,
        eps=config.number("rms_norm_eps", 1e-6),
        rope_base=rope_base,
        rope_factor=rope_factor,
        tied=config.flag("tie_word_embeddings"),
        attention_bias=config.flag("attention_bias"),
        mlp_bias=config.flag("mlp_bias"),
        window=window if window < context else None,
        stop_ids=_stop_ids(path, config, vocab),
    )


def _rope(config: Fields) -> tuple[float, float]:
    """Base and linear factor; transformers 5 writes `rope_parameters`, earlier ones `rope_theta` and `rope_scaling`.

    Of a file that has both, transformers takes `rope_scaling` alone (`convert_rope_params_to_dict` in its
    modeling_rope_utils.py), others the new one: what they do not agree on is refused.
    """
    new, old = (_scaling(config, config.object(key)) for key in ("rope_parameters", "rope_scaling"))
    if new and old and new != old:
        raise MedmindError(
            f"{config.file} scales positions in two ways: rope_parameters says {_said(new)}, rope_scaling {_said(old)}",
            "delete the one that is wrong",
        )
    kind, base, factor = new or old or ("default", config.number("rope_theta", _ROPE_BASE), 1.0)
    if kind not in ("default", "linear"):
        raise MedmindError(
            f"{config.file} scales positions by '{kind}'", "medmind converts unscaled and linear positions"
        )
    return base, factor


_ROPE_BASE = 10000.0
"""Of the rotary embedding, where a config names none."""


def _scaling(config: Fields, rope: Fields) -> tuple[str, float, float] | None:
    """Kind, base and linear factor that one of the two fields says; None where it is empty."""
    if not rope.values:
        return None
    if nested := next((key for key, value in rope.values.items() if isinstance(value, dict)), None):
        raise MedmindError(
            f"{rope.file} scales positions of some layers by {rope.within}.{nested}",
            "llama.cpp's llama has one way for all",
        )
    kind = rope.text("rope_type") or rope.text("type") or "default"
    base = rope.number("rope_theta", config.number("rope_theta", _ROPE_BASE))
    return kind, base, rope.number("factor") if kind == "linear" else 1.0


def _said(scaling: tuple[str, float, float]) -> str:
    kind, base, factor = scaling
    return f"'{kind}' with the base {base:g}" + (f" and the factor {factor:g}" if kind == "linear" else "")


def _stop_ids(path: Path, config: Fields, vocab: int) -> tuple[int, ...]:
    generation = path / "generation_config.json"
    sources = [Fields.read(generation)] if generation.is_file() else []
    for source in (*sources, config):
        ids = source.values.get("eos_token_id")
        if ids is not None:
            found = ids if isinstance(ids, list) else [ids]
            if not all(type(each) is int and 0 <= each < vocab for each in found):
                source.refuse("eos_token_id", f"a token id below {vocab}, or a list of them")
            return tuple(found)
    return ()
