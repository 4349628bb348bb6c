"""The models along the way from base to merged weights, each loaded as scoring wants it. Knows no rows."""

from pathlib import Path
from typing import Any

import torch

from medmind.base import Base, safetensors_header, weight_files
from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_train import model
from medmind_train.hardware import Device, Dtype
from medmind_train.score.document import Stage

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def load(stage: Stage, base: Base, adapter: Path, device: Device, dtype: Dtype) -> tuple[Any, str]:
    """A stage's model in eval mode, and the type of its weights.

    `adapter` is what training computed with: the NF4 base with the adapter on it. `base` is the untuned base, `merged`
    PEFT's merge_and_unload, and `merged-nf4` the same onto what NF4 leaves of the base. All three are rounded to the
    base's own type, and then computed in `dtype`.

    Raises:
        MedmindError: no such base or adapter, or more memory than there is.
    """
    if stage == "adapter":
        return model.load_tuned(base, adapter, device, dtype), "nf4"
    _refuse_large(base, device, dtype)
    model.check_weights(base)
    whole = _load(base)
    weights = str(whole.dtype).removeprefix("torch.")
    if stage == "merged-nf4":
        _round_to_nf4(whole)
    if stage in ("merged", "merged-nf4"):
        whole = _merged(whole, adapter)
    return whole.to(device=device, dtype=getattr(torch, dtype)).eval().requires_grad_(False), weights


def _load(base: Base) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        return read(base.path, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False)
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise MedmindError(f"{base.name} cannot be loaded: {error}", "check its config.json and its weights") from error


def _round_to_nf4(whole: Any) -> None:
    """Bring the linear layers that QLoRA quantizes to NF4 with double quantization and back, where they are."""
    from bitsandbytes import functional

    for name, module in whole.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith("_proj"):
            packed, state = functional.quantize_4bit(
                module.weight.data, blocksize=64, quant_type="nf4", compress_statistics=True
            )
            module.weight.data = functional.dequantize_4bit(packed, state)


def _merged(whole: Any, adapter: Path) -> Any:
    from peft import PeftConfig, get_peft_model

    if not (adapter / model.ADAPTER_CONFIG).is_file() or not (adapter / model.ADAPTER_WEIGHTS).is_file():
        raise MedmindError(
            f"{adapter} holds no PEFT adapter", f"it needs {model.ADAPTER_CONFIG} and {model.ADAPTER_WEIGHTS}"
        )
    tuned: Any = get_peft_model(whole, PeftConfig.from_pretrained(str(adapter)))
    model.load_adapter(tuned, adapter)
    return tuned.merge_and_unload()


def _refuse_large(base: Base, device: Device, dtype: Dtype) -> None:
    """Refuse weights that memory cannot hold, by their headers: unlike the 4-bit base they are computed unpacked."""
    count = 0
    for shard in weight_files(base.path):
        for entry in safetensors_header(shard).values():
            size = 1
            for length in entry["shape"]:
                size *= length
            count += size
    need = count * _BYTES[dtype]
    if device == "cuda":
        free = int(torch.cuda.mem_get_info()[0])
    else:
        import psutil

        free = int(psutil.virtual_memory().available)
    if need > free:
        hint = "take another machine, or --device cpu" if dtype != "float32" else "give --dtype bfloat16"
        raise MedmindError(
            f"{base.name} in {dtype} needs {human_bytes(need)} of memory and {human_bytes(free)} are free", hint
        )
