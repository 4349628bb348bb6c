"""Checkpoints of random weights in a real model's exact shape: memory and speed of a step do not depend on the values.

Knows names and shapes by transformers' word, and which checkpoint can be used again; measures nothing.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medmind import console
from medmind.artifacts import atomic_directory, read_json, require_space
from medmind.base import EMBEDDED_PATH, INDEX, TOKENIZER_FILES
from medmind.errors import MedmindError

if TYPE_CHECKING:
    import torch

NAMED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mistral-7b": {  # config.json of mistralai/Mistral-7B-Instruct-v0.3
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "vocab_size": 32768,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "rms_norm_eps": 1e-05,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        }
    }
)
MANIFEST = "synthetic.json"
FORMAT = "medmind-synthetic/1"
_SHARD = 2**30
"""Bytes of a shard, and with one tensor more what the host holds at once."""
_DEVIATION = 0.02
_TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def read_shape(name: str) -> dict[str, Any]:
    """The config of a named shape, of a config.json, or of a folder that holds one.

    Raises:
        MedmindError: neither, or not a causal language model's.
    """
    if name in NAMED:
        return dict(NAMED[name])
    path = Path(name)
    if not path.exists():
        raise MedmindError(f"there is no shape '{name}'", f"give {', '.join(NAMED)}, or a model's config.json")
    shape = read_json(path / "config.json" if path.is_dir() else path)
    if not shape.get("model_type") or not shape.get("architectures"):
        raise MedmindError(f"{path} names no model_type and architectures", "give a model's own config.json")
    return shape


def checkpoint(name: str, scratch: Path, *, device: str, seed: int, tokenizer: Path | None = None) -> Path:
    """A checkpoint of this shape under `scratch`, written unless it is there.

    Args:
        name: as `read_shape` takes it.
        device: where the numbers are made.
        tokenizer: folder whose tokenizer goes along, so that the checkpoint is a whole base.

    Returns:
        Its directory: config.json, bf16 shards with an index, tokenizer, and a manifest.

    Raises:
        MedmindError: an unknown shape, no tokenizer there, a disk too small.
    """
    shape = read_shape(name)
    words = _tokenizer(tokenizer or EMBEDDED_PATH)
    about = {
        "format": FORMAT,
        "config": shape,
        "seed": seed,
        "tokenizer": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in words},
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    stem = name if name in NAMED else str(shape["model_type"])
    final = scratch / f"{stem}-{digest[:8]}"
    if (final / MANIFEST).is_file() and read_json(final / MANIFEST) == about:
        return final
    tensors = _shapes(shape, name)
    size = 2 * sum(math.prod(sizes) for sizes in tensors.values())
    require_space(scratch, size, f"random weights of {name}", "give a --scratch on another disk")
    with atomic_directory(final) as folder:
        (folder / "config.json").write_text(json.dumps(shape, indent=2) + "\n", encoding="utf-8")
        for file in words:
            shutil.copyfile(file, folder / file.name)
        _write(folder, tensors, size, device, seed)
        # last: a folder with a manifest is whole
        (folder / MANIFEST).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return final


def _tokenizer(folder: Path) -> list[Path]:
    files = [folder / name for name in (*TOKENIZER_FILES, *_TOKENIZER_EXTRAS) if (folder / name).is_file()]
    if not any(file.name in TOKENIZER_FILES for file in files):
        raise MedmindError(f"{folder} holds no tokenizer", f"it needs one of: {', '.join(TOKENIZER_FILES)}")
    return files


def _shapes(shape: Mapping[str, Any], name: str) -> dict[str, tuple[int, ...]]:
    """Every weight by its name; a head tied to the embedding is none of its own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in shape.items() if key != "model_type"}
    try:
        with torch.device("meta"):
            build: Any = AutoModelForCausalLM.from_config
            model = build(AutoConfig.for_model(shape["model_type"], **fields))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise MedmindError(f"transformers makes no model of {name}: {error}", "mend its config.json") from error
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def _write(folder: Path, tensors: Mapping[str, tuple[int, ...]], size: int, device: str, seed: int) -> None:
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    shard: dict[str, torch.Tensor] = {}
    where: dict[str, str] = {}
    held = 0

    def flush() -> None:
        nonlocal held
        from safetensors.torch import save_file

        if shard:
            number = len(set(where.values())) + 1
            name = f"model-{number:05d}.safetensors"
            save_file(shard, folder / name, metadata={"format": "pt"})
            where.update(dict.fromkeys(shard, name))
            shard.clear()
            held = 0

    with console.progress("random weights", size, "B") as advance:
        for name, sizes in tensors.items():
            shard[name] = _values(name, sizes, generator)
            held += 2 * shard[name].numel()
            advance(2 * shard[name].numel())
            if held >= _SHARD:
                flush()
        flush()
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _values(name: str, sizes: tuple[int, ...], generator: "torch.Generator") -> "torch.Tensor":
    """Norms are 1, biases 0, matrices normal: bf16, in host memory."""
    import torch

    if len(sizes) == 1:
        return torch.full(sizes, 0.0 if name.endswith(".bias") else 1.0, dtype=torch.bfloat16)
    values = torch.empty(sizes, dtype=torch.bfloat16, device=generator.device)
    return values.normal_(0, _DEVIATION, generator=generator).cpu()
