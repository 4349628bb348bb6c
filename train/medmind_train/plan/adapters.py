"""The LoRA rank of every linear layer, from the settings and the base's sizes. Knows PEFT's rules of matching names."""

import re
from collections.abc import Mapping

from medmind.errors import MedmindError
from medmind_train import lora
from medmind_train.fused.shape import Shape
from medmind_train.qlora_config import QloraConfig

_PARENTS = {
    name: "mlp" if name in lora.PRESETS["mlp"] else "self_attn" for names in lora.PRESETS.values() for name in names
}


def ranks(config: QloraConfig, shape: Shape) -> tuple[Mapping[str, int], ...]:
    """The rank of each linear layer by its short name, first layer first; layers without an adapter are absent.

    Raises:
        MedmindError: a target that such a base does not have.
    """
    wanted = lora.target_modules(config.targets)
    full = {
        (index, name): f"model.layers.{index}.{_PARENTS[name]}.{name}"
        for index in range(shape.layers)
        for name in shape.linears
    }
    if not isinstance(wanted, str):
        for word in wanted:
            if not any(_names(word, path) for path in full.values()):
                raise MedmindError(
                    f"--targets cannot be '{word}': a base of this kind has no such layer",
                    f"choose {', '.join(lora.PRESETS)}, {lora.ALL_LINEAR}, or from {', '.join(shape.linears)}",
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
        if isinstance(wanted, str) or any(_names(word, path) for word in wanted):
            found[index][name] = next((rank for rule, rank in rules if rule.match(path)), config.rank)
    return tuple(found)


def _names(word: str, path: str) -> bool:
    return f".{path}".endswith(f".{word}")
