"""What a PEFT LoRA adapter adds to which base tensor. Knows PEFT's file format and scaling rules; merges by rows.

Anything that changes the model in a way this merge does not reproduce is refused by name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind.artifacts import adapter_digest, read_json
from medmind.errors import MedmindError
from medmind_convert.config_fields import Fields, is_texts
from medmind_convert.weights import Tensor, open_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MAGNITUDE = "lora_magnitude_vector"
_PART = re.compile(rf"(?:base_model\.model\.)?(.+)\.(lora_[AB]\.weight|{_MAGNITUDE})")
_HARMLESS = {
    *(
        "peft_type",
        "peft_version",
        "task_type",
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
    ),
    *("r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "use_dora"),
    *("lora_dropout", "init_lora_weights", "bias"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying"),
    *("megatron_core", "qalora_group_size", "eva_config", "runtime_config"),
}
"""Fields of adapter_config.json that the merge follows or that only steered training. Any other, if set, is refused."""
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "true", "false")
"""Values of init_lora_weights that leave the base as it was; pissa, olora, corda, loftq, lora_ga change it."""


@dataclass(frozen=True)
class Delta:
    """The change of one base weight: + scale · B @ A, and with DoRA each row brought to a length of its own.

    Attributes:
        a: shape (rank, columns).
        b: shape (rows, rank).
        scale: alpha / rank, or alpha / √rank with rsLoRA.
        magnitude: shape (rows,), the L2 norms that DoRA trained for the rows; None without DoRA.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None

    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
        """A, B and the magnitude as float32.

        Raises:
            MedmindError: NaN or infinity in one of them; the tensor is named.
        """
        for tensor in (self.a, self.b, self.magnitude):
            if tensor is not None and not np.isfinite(tensor.rows(slice(None))).all():
                raise MedmindError(f"{tensor.name} of the adapter holds NaN or infinity", "train it again")
        magnitude = self.magnitude.rows(slice(None)) if self.magnitude else None
        return self.a.rows(slice(None)), self.b.rows(slice(None)), magnitude


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter whose every tensor has its place in the base.

    Attributes:
        path: its directory.
        deltas: base tensor name (`model.layers.0.self_attn.q_proj.weight`) -> change.
        base_name: the base it was trained on, as PEFT noted it; may be empty.
    """

    path: Path
    deltas: Mapping[str, Delta]
    base_name: str

    @property
    def digest(self) -> str:
        """Digest of all files of its directory, as medmind-train writes it into a run."""
        return adapter_digest(self.path)


def read_config(path: Path) -> dict[str, Any]:
    """adapter_config.json of a directory, refused unless it is a LoRA that `load` can merge.

    Raises:
        MedmindError: no adapter there, weights as pickle only, or a kind of adapter that is not supported, by name.
    """
    if not (path / CONFIG).is_file():
        raise MedmindError(f"{path} holds no {CONFIG}", "give a PEFT adapter directory")
    if not (path / WEIGHTS).is_file():
        if (path / "adapter_model.bin").is_file():
            raise MedmindError(
                f"{path} has its weights as pickle only (adapter_model.bin), which can run code when loaded",
                "save the adapter as safetensors",
            )
        raise MedmindError(f"{path} holds no {WEIGHTS}", "finish or repeat the training")
    config = read_json(path / CONFIG)
    _require_types(Fields(path / CONFIG, config))
    if config.get("peft_type") != "LORA":
        raise MedmindError(f"{path} is a {config.get('peft_type')} adapter", "medmind merges LoRA adapters")
    refused = sorted(name for name, value in config.items() if value and name not in _HARMLESS)
    if config.get("bias") not in (None, "none"):
        refused.append("bias")
    start = config.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        refused.append(f"init_lora_weights={start}")
    if refused:
        raise MedmindError(f"{path / CONFIG} uses {', '.join(refused)}, which medmind cannot merge", _BY_PEFT)
    return config


def _require_types(fields: Fields) -> None:
    """Refuse a field that the merge follows and that is not what it must be; NaN and infinity are no numbers."""
    if fields.values.get("r") is not None:
        fields.count("r")
    if fields.values.get("lora_alpha") is not None:
        fields.number("lora_alpha")
    for key, value in (("rank_pattern", Fields.count), ("alpha_pattern", Fields.number)):
        patterns = fields.object(key)
        for pattern in patterns.values:
            value(patterns, pattern)
            try:
                re.compile(_whole(pattern))
            except re.error as error:
                raise MedmindError(
                    f"{fields.file} has the pattern {pattern!r} in {key}, no regular expression: {error}",
                    "copy the adapter again",
                ) from error
    for key in ("use_rslora", "use_dora"):
        fields.flag(key)
    for key in ("target_modules", "exclude_modules"):
        named = fields.values.get(key)
        if named is not None and not isinstance(named, str) and not is_texts(named):
            fields.refuse(key, "a text or a list of texts")
    for key in ("peft_type", "base_model_name_or_path", "bias"):
        fields.text(key)


def load(path: Path, base: Mapping[str, tuple[int, ...]], *, tied: bool) -> Adapter:
    """Read an adapter's headers and match each of its tensors to a base tensor.

    Args:
        path: PEFT adapter directory.
        base: base tensor name -> shape.
        tied: whether the base's output layer is its embedding, in which case it cannot have a change of its own.

    Raises:
        MedmindError: an unknown or left-over tensor, a dimension that does not match, a rank other than the config's;
            the tensor is named.
    """
    config = read_config(path)
    tensors = open_tensors([path / WEIGHTS])
    if not tensors:
        raise MedmindError(f"{path / WEIGHTS} holds no tensors", "finish or repeat the training")
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _PART.fullmatch(name)
        if match is None or (match[2] == _MAGNITUDE and not config.get("use_dora")):
            raise MedmindError(f"{path / WEIGHTS} holds {name}, which medmind cannot merge", _BY_PEFT)
        modules.setdefault(match[1], {})[match[2]] = tensor
    deltas = {
        f"{module}.weight": _match(module, pair, config, base, tied=tied) for module, pair in sorted(modules.items())
    }
    return Adapter(path, deltas, str(config.get("base_model_name_or_path") or ""))


def _match(
    module: str,
    pair: Mapping[str, Tensor],
    config: Mapping[str, Any],
    base: Mapping[str, tuple[int, ...]],
    *,
    tied: bool,
) -> Delta:
    needed = ("lora_A.weight", "lora_B.weight") + ((_MAGNITUDE,) if config.get("use_dora") else ())
    for part in needed:
        if part not in pair:
            file = next(iter(pair.values())).file
            raise MedmindError(f"{file} lacks {_PREFIX}{module}.{part}", "copy it again")
    a, b = pair["lora_A.weight"], pair["lora_B.weight"]
    if tied and module == "lm_head":
        raise MedmindError(f"the adapter changes {module}, which this base ties to its embedding", "leave it out")
    shape = base.get(f"{module}.weight")
    if shape is None:
        raise MedmindError(
            f"the adapter does not match the base: {a.name} in {a.file} has no counterpart there", _OTHER_BASE
        )
    file = a.file.with_name(CONFIG)
    rank, scale = scaling(module, config, file)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise MedmindError(
            f"{a.name} {a.shape} and its B {b.shape} are not of the rank {rank} that {file} gives", "copy it again"
        )
    if (b.shape[0], a.shape[1]) != tuple(shape):
        wrong = a if a.shape[1] != shape[-1] else b
        raise MedmindError(
            f"the adapter does not match the base: {wrong.name} is {wrong.shape}, {module}.weight is {tuple(shape)}",
            _OTHER_BASE,
        )
    magnitude = pair.get(_MAGNITUDE)
    if magnitude is not None and magnitude.shape != (b.shape[0],):
        raise MedmindError(
            f"the adapter does not match the base: {magnitude.name} is {magnitude.shape}, "
            f"{module}.weight has {b.shape[0]} rows",
            _OTHER_BASE,
        )
    return Delta(a, b, scale, magnitude)


_BY_PEFT = "merge it with PEFT (merge_and_unload) and give the merged model as --base"
_OTHER_BASE = "give the base it was trained on with --base"


def scaling(module: str, config: Mapping[str, Any], file: Path) -> tuple[int, float]:
    """Rank and scale of one module: alpha / rank, or alpha / √rank with rsLoRA (arXiv:2312.03732).

    Patterns match as in PEFT's `get_pattern_key`: the first key, in the config's order, that equals the module's name
    or ends it after a dot, read as a regular expression.

    Args:
        module: its name in transformers.
        config: what `read_config` returned.
        file: where that stands.

    Raises:
        MedmindError: no rank or alpha for it, or a scale beyond the range of float32.
    """
    rank = _by_pattern(config.get("rank_pattern") or {}, module, config.get("r"))
    alpha = _by_pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha"))
    if rank is None or alpha is None:
        raise MedmindError(f"{file} gives {module} the rank {rank} and alpha {alpha}", "copy the adapter again")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    if not least <= scale <= most:
        raise MedmindError(
            f"{file} scales {module} by {scale:g} (alpha {alpha:g}, rank {rank}), beyond the range of float32",
            "copy the adapter again, or train it again",
        )
    return rank, scale


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(_whole(pattern), module):
            return value
    return patterns.get(module, default)


def _whole(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"
