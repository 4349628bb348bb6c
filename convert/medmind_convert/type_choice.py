"""Which tensor type each tensor of a file type gets: llama.cpp's mixtures, decision for decision. Reads no weight.

Source of every rule: llama-quant.cpp of llama.cpp (`llama_tensor_get_type_impl`, `tensor_type_fallback`,
`tensor_requires_imatrix`), for dense models; its dry run is the oracle of tests/convert/test_type_choice.py.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medmind.errors import MedmindError
from medmind_convert import ggml
from medmind_convert.quants import Quant

DEFAULTS = {
    **{name: name.upper() for name in ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_1", "q5_0", "q4_1", "q4_0")},
    **{name: name.upper() for name in ("iq4_nl", "iq4_xs", "iq3_s", "iq3_xxs", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s")},
    **{name: name.upper() for name in ("q2_k", "tq2_0", "tq1_0", "q2_0", "q1_0")},
    **{"q5_k_m": "Q5_K", "q5_k_s": "Q5_K", "q4_k_m": "Q4_K", "q4_k_s": "Q4_K"},
    **{"q3_k_l": "Q3_K", "q3_k_m": "Q3_K", "q3_k_s": "Q3_K", "q2_k_s": "Q2_K"},
    **{"iq3_m": "IQ3_S", "iq3_xs": "IQ3_S", "iq2_m": "IQ2_S", "iq2_s": "IQ2_XS", "mxfp4_moe": "MXFP4"},
}
"""File type -> type of the tensors of which nothing else is said (`llama_ftype_get_default_type`)."""

_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    **{"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"},
}
"""What a type gives way to when a row is no whole number of its blocks."""
_WANTS_IMATRIX = {"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"}
_ONE_OR_TWO_BITS = {"iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq1_s", "iq1_m"}
_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Dimensions:
    """What the mixtures look at beside a tensor's own name and shape.

    Attributes:
        layers: number of blocks.
        heads: attention heads.
        heads_kv: key/value heads.
        architecture: llama.cpp's name of it.
    """

    layers: int
    heads: int
    heads_kv: int
    architecture: str = "llama"

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes it for a 70B, whose value layers it keeps better (`LLM_TYPE_70B`)."""
        if self.architecture == "llama":
            return self.layers == 80 and self.heads != self.heads_kv
        return self.architecture == "qwen2" and self.layers == 80


@dataclass(frozen=True)
class Shaped:
    """A tensor by llama.cpp's name and shape, rows first."""

    name: str
    shape: tuple[int, ...]


def order(names: Iterable[str]) -> list[str]:
    """Names in the order in which llama-quantize counts and writes tensors: outside the blocks first, then by block.

    Source: `weight_name_comparer` in llama-model-loader.h.
    """

    def key(name: str) -> tuple[int, str]:
        match = _LAYER.match(name)
        return int(match[1]) if match else -1, name

    return sorted(names, key=key)


def allows_quantization(tensor: Shaped) -> bool:
    """Whether a tensor may be quantized: matrices may, norms and vectors stay as they are."""
    return len(tensor.shape) >= 2 and tensor.name.endswith("weight") and "_norm.weight" not in tensor.name


def choose(
    quant: Quant, tensors: Sequence[Shaped], dimensions: Dimensions, *, native: str, imatrix: bool
) -> dict[str, str]:
    """The type of each tensor in a file of one type.

    Args:
        quant: the file type.
        tensors: all tensors of the model.
        dimensions: of the model.
        native: type of the matrices in the unquantized file: the base's own.
        imatrix: whether there is an importance matrix.

    Returns:
        Tensor name -> ggml type, in the order of `order`.
    """
    default = DEFAULTS[quant.name]
    by_name = {tensor.name: tensor for tensor in tensors}
    if quant.is_float:
        native = default
    mixture = _Mixture(quant.name, default, list(by_name), dimensions, imatrix)
    chosen = {}
    for name in order(by_name):
        tensor = by_name[name]
        if not allows_quantization(tensor):
            chosen[name] = native if len(tensor.shape) >= 2 else "F32"
        elif not ggml.types()[default].quantized:
            chosen[name] = default
        else:
            chosen[name] = fallback(mixture.type_of(tensor), tensor.shape[-1])
    return chosen


def fallback(kind: str, columns: int) -> str:
    """The type itself, or what llama.cpp takes instead for rows that are no whole number of its blocks.

    Raises:
        MedmindError: llama.cpp has no substitute for it.
    """
    types = ggml.types()
    if columns % types[kind].block == 0:
        return kind
    if kind in _FALLBACK:
        substitute = _FALLBACK[kind]
    elif types[kind].block <= 32:
        return "F16"
    else:
        raise MedmindError(
            f"rows of {columns} values cannot be stored as {kind}, and llama.cpp has no substitute",
            "take another type",
        )
    return "F16" if columns % types[substitute].block else substitute


def requires_imatrix(name: str, kind: str, quant: Quant) -> bool:
    """Whether llama.cpp refuses to store this tensor in this type without an importance matrix."""
    if name in ("token_embd.weight", "per_layer_token_embd.weight", "output.weight"):
        return False
    return kind in _WANTS_IMATRIX or (kind == "Q2_K" and quant.name == "q2_k_s")


class _Mixture:
    """The rules of one file type, with the counters that they move on from tensor to tensor."""

    def __init__(self, quant: str, default: str, names: Sequence[str], dimensions: Dimensions, imatrix: bool) -> None:
        self.quant = quant
        self.default = default
        self.imatrix = imatrix
        self.is_70b = dimensions.is_70b
        self.layers = dimensions.layers
        self.many_share = dimensions.heads // dimensions.heads_kv >= 4
        self.tied = "output.weight" not in names
        self.values = sum(_is_value(name) for name in names)
        self.seen = {"value": 0, "ffn_down": 0, "ffn_gate": 0, "ffn_up": 0}

    def _next(self, kind: str) -> int:
        self.seen[kind] += 1
        return self.seen[kind] - 1

    def type_of(self, tensor: Shaped) -> str:  # noqa: PLR0911 - one return a category
        """The type before fallbacks; call it once a tensor, in the file's order."""
        name = tensor.name
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return self._output(tensor.shape[-1])
        if self.quant == "mxfp4_moe":
            return "Q8_0"  # the experts alone are MXFP4, and there are none
        if name == "token_embd.weight":
            return self._embedding()
        if self.quant in _ONE_OR_TWO_BITS:
            return self._few_bits(name)
        if _is_value(name):
            return self._value()
        if "attn_k.weight" in name or "attn_q.weight" in name:
            return {"iq3_xs": "IQ3_XXS", "iq3_xxs": "IQ2_S"}.get(self.quant, self.default)
        if "attn_output.weight" in name:
            return {
                "q2_k": "Q3_K", "iq3_xxs": "IQ3_S", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K", "iq3_m": "Q4_K",
            }.get(self.quant, self.default)  # fmt: skip
        if "ffn_down" in name:
            return self._down(self._next("ffn_down"))
        for kind in ("ffn_gate", "ffn_up"):
            if kind in name:
                layer, inner = self._next(kind), range(self.layers // 8, 7 * self.layers // 8)
                return "IQ3_XXS" if self.quant == "iq3_xs" and layer in inner else self.default
        return self.default

    def _output(self, columns: int) -> str:
        """The output layer, or the embedding that stands for it; rows that do not fit are kept at 8 bits."""
        if self.quant == "mxfp4_moe" or columns % ggml.types()[self.default].block:
            return "Q8_0"
        if self.quant in _ONE_OR_TWO_BITS or self.quant == "iq3_xxs":
            return "Q5_K"
        return "Q8_0" if self.default == "Q8_0" else "Q6_K"

    def _embedding(self) -> str:
        if self.quant in ("iq2_xxs", "iq2_xs", "iq1_s", "iq1_m"):
            return "Q2_K"
        if self.quant in ("iq2_s", "iq2_m", "iq3_xxs"):
            return "IQ3_S"
        if self.quant in ("tq1_0", "tq2_0", "q2_0"):
            return "Q4_K"
        return self.default

    def _few_bits(self, name: str) -> str:
        better = "IQ3_S" if self.quant in ("iq2_s", "iq2_m") else "Q2_K"
        if _is_value(name):
            self._next("value")
            return "Q4_K" if self.many_share else better
        if "ffn_down" in name:
            return better if self._next("ffn_down") < self.layers // 8 else self.default
        if "attn_output.weight" in name:
            return {"iq1_s": "IQ2_XXS", "iq1_m": "IQ2_XXS", "iq2_s": "IQ3_S", "iq2_m": "IQ3_S"}.get(
                self.quant, self.default
            )
        return self.default

    def _value(self) -> str:
        layer = self._next("value")
        quant, kind = self.quant, self.default
        if quant == "q2_k":
            kind = "Q4_K" if self.many_share else "Q3_K"
        elif quant == "iq3_xxs":
            kind = "Q4_K" if self.many_share else "IQ3_XXS" if self.imatrix else "IQ3_S"
        elif quant == "iq3_m" or (quant in ("q2_k_s", "iq3_xs", "iq3_s") and self.many_share):
            kind = "Q4_K"
        elif quant == "q3_k_m":
            kind = "Q5_K" if layer < 2 else "Q4_K"
        elif quant == "q3_k_l" or (quant in ("iq4_nl", "iq4_xs") and self.many_share):
            kind = "Q5_K"
        elif quant in ("q4_k_m", "q5_k_m") and _more_bits(layer, self.values):
            kind = "Q6_K"
        elif quant == "q4_k_s" and layer < 4:
            kind = "Q5_K"
        return "Q5_K" if self.is_70b and kind in ("Q3_K", "Q4_K") else kind

    def _down(self, layer: int) -> str:
        quant, layers = self.quant, self.layers
        early = layer < layers // 8
        by_place: Mapping[str, str] = {
            "q2_k": "Q3_K",
            "q2_k_s": "Q4_K" if early else self.default,
            "q3_k_m": "Q5_K" if layer < layers // 16 else "Q4_K",
            "iq3_m": "Q4_K" if early else self.default,
            "q3_k_l": "Q5_K",
            "q4_k_m": "Q6_K" if _more_bits(layer, layers) else self.default,
            "q5_k_m": "Q6_K" if _more_bits(layer, layers) else self.default,
            "q4_k_s": "Q5_K" if early else self.default,
        }
        if quant == "iq3_xxs" and not self.imatrix:
            return "Q4_K" if early else "Q3_K"
        if early and quant in ("iq4_nl", "iq4_xs") and not self.imatrix:
            return "Q5_K"
        if early and quant in ("q4_0", "q5_0") and self.imatrix:
            return {"q4_0": "Q4_1", "q5_0": "Q5_1"}[quant]
        return by_place.get(quant, self.default)


def _is_value(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth, and every third between (`use_more_bits`)."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
