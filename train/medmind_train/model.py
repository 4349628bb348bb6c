"""The NF4 base with its LoRA adapter: loading, adding, saving. One path for CPU and CUDA; knows no data and no loop."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from medmind.base import Base, safetensors_header, weight_files
from medmind.errors import MedmindError
from medmind_train import lora
from medmind_train.hardware import Device, Dtype

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def load_base(base: Base, device: Device, dtype: Dtype, *, sharded: bool = False) -> Any:
    """The base with its linear layers in NF4 with double quantization, frozen, computing in `dtype`.

    Norms, embedding and head stay in `dtype`: `prepare_model_for_kbit_training` would make them fp32, which costs
    1 GiB on a 7B and buys nothing.

    Args:
        sharded: leave it on the host, as `sharding.shard` wants it.

    Raises:
        MedmindError: weights that are missing or do not fit the config, or a device without the memory.
    """
    import bitsandbytes
    from safetensors import SafetensorError

    check_weights(base)
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    load: Any = AutoModelForCausalLM.from_pretrained  # its annotation forgets what output_loading_info adds
    quantize: Any = BitsAndBytesConfig

    compute = getattr(torch, dtype)
    quantization = quantize(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute if sharded else torch.uint8,
    )
    try:
        model, info = load(
            base.path,
            dtype=compute,
            quantization_config=quantization,
            device_map={"": torch.cuda.current_device() if device == "cuda" and not sharded else "cpu"},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise MedmindError(
            f"{base.name} does not fit into the card's memory in 4 bit", "close other programs that use the card"
        ) from error
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise MedmindError(f"{base.name} cannot be loaded: {error}", "check its config.json and its weights") from error
    # transformers fills a weight that no file holds with random numbers, and only logs it.
    for fault in ("missing_keys", "mismatched_keys"):
        if info.get(fault):
            raise MedmindError(
                f"the weights of {base.name} do not fit its config.json: {fault.replace('_', ' ')} such as "
                f"{min(map(str, info[fault]))}",
                "download or copy it again",
            )
    model.config.use_cache = False
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            if device == "cpu":
                _demand_right_kernel(base, name, module)
            # In eval mode bitsandbytes repacks a layer for a bf16 kernel of some CPUs, for good: evaluation would
            # compute in another type than training, and no gradient could pass through that layer afterwards.
            module.support_avx512bf16_for_cpu = False
    return model


def _demand_right_kernel(base: Base, name: str, layer: Any) -> None:
    """Refuse a layer that bitsandbytes dequantizes wrongly, by asking for the same weights as one long row.

    Its kernel for CPUs with AVX-512 takes a block to end where a row ends (bitsandbytes 0.50, cpu_ops.cpp).
    """
    from bitsandbytes import functional

    packed, state = layer.weight, layer.weight.quant_state
    rows, columns = state.shape
    if columns % state.blocksize:
        flat = copy.copy(state)
        flat.shape = torch.Size([1, rows * columns])
        right = functional.dequantize_4bit(packed.data, flat).reshape(rows, columns)
        if not torch.equal(functional.dequantize_4bit(packed.data, state), right):
            raise MedmindError(
                f"{base.name} cannot be trained on this processor: {name} is {columns} wide, no multiple of "
                f"{state.blocksize}, and bitsandbytes computes wrong values of its weights here",
                "train it on a GPU, or take another base",
            )


def check_weights(base: Base) -> None:
    """Refuse weights of other sizes than the config says, by their headers: packed into 4 bit, sizes do not show.

    Raises:
        MedmindError: the first tensor of another shape, or a base that is quantized already.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise MedmindError(
            f"{base.name} is quantized already", "take the unquantized model; it is brought to 4 bit while it is loaded"
        )
    with torch.device("meta"):
        build: Any = AutoModelForCausalLM.from_config
        wanted = build(config).state_dict()
    for shard in weight_files(base.path):
        for name, entry in safetensors_header(shard).items():
            if name in wanted and list(wanted[name].shape) != entry["shape"]:
                raise MedmindError(
                    f"the weights of {base.name} do not fit its config.json: {name} is {_sizes(entry['shape'])} in "
                    f"{shard.name} and {_sizes(wanted[name].shape)} by the config",
                    "download or copy it again",
                )


def add_adapter(
    model: Any,
    base: Base,
    *,
    targets: str,
    rank: int,
    alpha: float,
    dropout: float,
    checkpointing: bool,
    seed: int,
    rslora: bool = False,
    dora: bool = False,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
) -> Any:
    """Put a fresh LoRA adapter (fp32, B = 0) on a loaded base; the seed alone determines its values.

    Args:
        targets: `qv`, `attention`, `mlp`, `all-linear` (everything but the head) or layer names apart by commas.
        checkpointing: recompute each layer's activations in the backward pass.
        rslora: scale by alpha / √rank instead of alpha / rank (arXiv:2312.03732).
        dora: train each row's magnitude apart from its direction (arXiv:2402.09353). It starts as the norm of the
            row's NF4 values; PEFT computes it in `dtype`, so that in 16 bits the fresh adapter is not quite a no-op.
        rank_pattern, alpha_pattern: layer name or regular expression -> rank or alpha; the first that matches counts.

    Raises:
        MedmindError: settings that PEFT refuses on this base.
    """
    from peft import LoraConfig, get_peft_model

    lora.check(base, targets, rank_pattern, alpha_pattern)
    torch.manual_seed(seed)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapter = LoraConfig(
        r=rank,
        lora_alpha=_plain(alpha),
        lora_dropout=dropout,
        target_modules=lora.target_modules(targets),
        rank_pattern=dict(rank_pattern or {}),
        alpha_pattern={name: _plain(value) for name, value in (alpha_pattern or {}).items()},
        use_rslora=rslora,
        use_dora=dora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        tuned = get_peft_model(model, adapter)
    except ValueError as error:
        raise MedmindError(
            f"PEFT cannot put this adapter on {base.name}: {error}", "choose other --targets, or leave --dora out"
        ) from error
    _name_base(tuned, base)
    return tuned


def load_tuned(base: Base, adapter: Path, device: Device, dtype: Dtype) -> Any:
    """The NF4 base with a saved adapter on it, in eval mode and frozen.

    Raises:
        MedmindError: no adapter there, or one that was made for another base.
    """
    from peft import PeftConfig, get_peft_model

    if not (adapter / ADAPTER_CONFIG).is_file() or not (adapter / ADAPTER_WEIGHTS).is_file():
        raise MedmindError(f"{adapter} holds no PEFT adapter", f"it needs {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}")
    config = PeftConfig.from_pretrained(str(adapter))
    config.inference_mode = True
    tuned = get_peft_model(load_base(base, device, dtype), config)
    load_adapter(tuned, adapter)
    tuned.requires_grad_(False)
    return tuned.eval()


def trainable(model: Any) -> list[torch.nn.Parameter]:
    """The adapter's parameters, in the model's own order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file, names in order; the library's own `save_file` makes it readable for its owner only."""
    from safetensors.torch import save

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    path.write_bytes(save(ready, metadata={"format": "pt"}))


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter in PEFT's format into an existing folder: the same bytes for the same values.

    PEFT's own `save_pretrained` would ask the hub whether the vocabulary has grown, and add a model card.
    """
    from peft import get_peft_model_state_dict

    write_tensors(folder / ADAPTER_WEIGHTS, get_peft_model_state_dict(model, save_embedding_layers=False))
    config = model.peft_config["default"]
    before = config.inference_mode, config.target_modules
    config.inference_mode = True
    if isinstance(config.target_modules, set):  # its order changes from process to process, and the digest with it
        config.target_modules = sorted(config.target_modules)
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode, config.target_modules = before


def load_adapter(model: Any, folder: Path) -> None:
    """Copy a saved adapter's values into the adapter on `model`.

    Raises:
        MedmindError: tensors that are missing, left over or of another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(folder / ADAPTER_WEIGHTS)
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in saved or name not in wanted or saved[name].shape != wanted[name].shape:
            raise MedmindError(
                f"the adapter in {folder} does not match the base: {name} is "
                f"{_shape(saved.get(name))} in the adapter and {_shape(wanted.get(name))} on the base",
                "use the base that it was trained on",
            )
    set_peft_model_state_dict(model, saved)


def precision(device: Device, dtype: Dtype) -> AbstractContextManager[None]:
    """Autocast to `dtype`, so that the fp32 adapter multiplies in it as well; nothing to do in fp32."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device, dtype=getattr(torch, dtype))


def _plain(number: float) -> float:
    """8.0 as 8: the adapter's config should read as other tools write it."""
    return int(number) if number == int(number) else number


def _shape(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else _sizes(tensor.shape)


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _name_base(model: Any, base: Base) -> None:
    """Write into the adapter's config what the user called the base, not where it happens to lie on this machine."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.name
    config.revision = base.revision
