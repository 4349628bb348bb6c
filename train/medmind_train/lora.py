"""Which layers of a base get an adapter, and of what rank and alpha: the settings' words against the base's own layers.

Knows file headers, sizes and PEFT's matching rules; loads no weight, no torch and no PEFT: a wrong word is said early.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmind.base import Base, safetensors_header, weight_files
from medmind.errors import MedmindError
from medmind_train.fused.shape import Shape
from medmind_train.qlora_config import QloraConfig

PRESETS: Mapping[str, Sequence[str]] = {
    "qv": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
ALL_LINEAR = "all-linear"
"""Every linear layer but the head, as PEFT means it by the same word."""
_NOT_LINEAR = ("embed_tokens", "lm_head")
_PARENTS = {name: "mlp" if name in PRESETS["mlp"] else "self_attn" for names in PRESETS.values() for name in names}


def target_modules(targets: str) -> str | list[str]:
    """What PEFT's `target_modules` takes for `qv`, `attention`, `mlp`, `all-linear` or names apart by commas."""
    if targets == ALL_LINEAR:
        return ALL_LINEAR
    return list(PRESETS.get(targets) or _names(targets))


def ranks(config: QloraConfig, shape: Shape) -> tuple[Mapping[str, int], ...]:
    """The rank of each linear layer of a decoder by its short name, first layer first; no adapter: absent.

    Known from sizes alone, for bases whose layers are named as `shape.KINDS` name them.

    Raises:
        MedmindError: a target that such a base does not have.
    """
    wanted = target_modules(config.targets)
    full = {
        (index, name): f"model.layers.{index}.{_PARENTS[name]}.{name}"
        for index in range(shape.layers)
        for name in shape.linears
    }
    if not isinstance(wanted, str):
        for word in wanted:
            if not any(_ends_with(word, path) for path in full.values()):
                raise MedmindError(
                    f"--targets cannot be '{word}': a base of this kind has no such layer",
                    f"choose {', '.join(PRESETS)}, {ALL_LINEAR}, or from {', '.join(shape.linears)}",
                )
    try:
        # PEFT takes the first pattern that matches the end of a layer's name (get_pattern_key)
        rules = [(re.compile(rf"(.*\.)?({text})$"), rank) for text, rank in (config.rank_pattern or {}).items()]
    except re.error as error:
        raise MedmindError(
            f"--rank-pattern has no regular expression: {error}", "name a layer, such as q_proj"
        ) from error
    found: list[dict[str, int]] = [{} for _ in range(shape.layers)]
    for (index, name), path in full.items():
        if isinstance(wanted, str) or any(_ends_with(word, path) for word in wanted):
            found[index][name] = next((rank for rule, rank in rules if rule.match(path)), config.rank)
    return tuple(found)


def linear_layers(path: Path) -> list[str]:
    """Dotted names of the linear layers of a base directory (every stored matrix but embedding and head)."""
    return [
        name.removesuffix(".weight")
        for shard in weight_files(path)
        for name, entry in safetensors_header(shard).items()
        if name.endswith(".weight") and len(entry["shape"]) == 2 and name.split(".")[-2] not in _NOT_LINEAR
    ]


def check(
    base: Base,
    targets: str,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
) -> None:
    """Refuse a target that the base does not have, and a pattern that would change nothing.

    Raises:
        MedmindError: names the word, and the nearest that would do.
    """
    layers = linear_layers(base.path)
    chosen = set(layers)
    if targets != ALL_LINEAR:
        by_name = {name: {layer for layer in layers if _ends_with(name, layer)} for name in target_modules(targets)}
        for name, found in by_name.items():
            if not found:
                _raise_unknown_target(base, targets, name, layers)
        chosen = set().union(*by_name.values())
    _check_patterns("--rank-pattern", rank_pattern or {}, chosen, layers)
    _check_patterns("--alpha-pattern", alpha_pattern or {}, chosen, layers)


def _ends_with(word: str, path: str) -> bool:
    # PEFT matches a name that is the layer's own or ends it after a dot (tuners_utils.check_target_module_exists)
    return f".{path}".endswith(f".{word}")


def _names(targets: str) -> list[str]:
    names = [name.strip() for name in targets.split(",")]
    if not all(names):
        raise MedmindError(f"--targets '{targets}' has an empty name", "give names apart by commas: q_proj,v_proj")
    return list(dict.fromkeys(names))


def _raise_unknown_target(base: Base, targets: str, name: str, layers: Sequence[str]) -> None:
    own = list(dict.fromkeys(layer.rpartition(".")[2] for layer in layers))
    if targets in PRESETS:
        raise MedmindError(
            f"--targets {targets} means {', '.join(PRESETS[targets])}, and {base.name} has no {name}",
            f"choose {ALL_LINEAR}, or from {', '.join(own)}",
        )
    # a preset is a word of its own: among other names it would be one more unknown layer
    words = [*own, *layers] + ([*PRESETS, ALL_LINEAR] if name == targets else [])
    raise MedmindError(
        f"--targets cannot be '{name}': {base.name} has no such layer",
        f"choose {', '.join(PRESETS)}, {ALL_LINEAR}, or from {', '.join(own)}; nearest: {_nearest(name, words)}",
    )


def _check_patterns(flag: str, patterns: Mapping[str, float], chosen: set[str], layers: Sequence[str]) -> None:
    """Every pattern must be the first one that matches some chosen layer, by the rule of PEFT's `get_pattern_key`."""
    compiled = {}
    for pattern in patterns:
        try:
            compiled[pattern] = re.compile(rf"(.*\.)?({pattern})$")
        except re.error as error:
            raise MedmindError(
                f"{flag} has '{pattern}', no regular expression: {error}", "name a layer, such as q_proj"
            ) from error
    used = {next((pattern for pattern, rule in compiled.items() if rule.match(layer)), None) for layer in chosen}
    for pattern, rule in compiled.items():
        if pattern in used:
            continue
        if any(rule.match(layer) for layer in chosen):
            raise MedmindError(
                f"{flag} '{pattern}' never counts: the patterns before it match all its layers",
                "put the narrower pattern first",
            )
        if any(rule.match(layer) for layer in layers):
            raise MedmindError(
                f"{flag} '{pattern}' matches no layer that gets an adapter", "add it to --targets, or leave it out"
            )
        own = dict.fromkeys([layer.rpartition(".")[2] for layer in layers] + list(layers))
        raise MedmindError(f"{flag} '{pattern}' matches no layer of the base", f"nearest: {_nearest(pattern, own)}")


def _nearest(word: str, known: Mapping[str, None] | Sequence[str]) -> str:
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0)[0]
