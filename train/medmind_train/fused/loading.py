"""A base read into NF4 tensor by tensor, each part straight to where it will lie: card, host, or host with streaming.

Gives the model that `model.load_base` gives, bit for bit, without a peak of memory on the way. Knows safetensors,
transformers and bitsandbytes; nothing of adapters and steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medmind import console
from medmind.base import Base, safetensors_header, weight_files
from medmind.errors import MedmindError
from medmind_train.fused.host import HostEmbedding, HostHead, Pages
from medmind_train.fused.placement import Placement
from medmind_train.fused.shape import BLOCK
from medmind_train.fused.stream import LayerStream, bind
from medmind_train.hardware import Device, Dtype
from medmind_train.model import check_weights

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def load(base: Base, device: Device, dtype: Dtype, placement: Placement, *, slots: int = 2) -> Any:
    """The base in NF4 with double quantization, frozen, in eval mode, computing in `dtype`, its parts as placed.

    On the card, besides what stays there, is at most one dequantized matrix at a time. The embedding is a
    `HostEmbedding`; the head a `HostHead` unless `placement.head_on_card`. The model's attribute `layer_stream` is the
    `LayerStream` of the streamed layers, or None.

    Args:
        base: one whose names are those of `Shape.KINDS`.
        slots: places on the card for streamed layers.

    Raises:
        MedmindError: weights that are missing or do not fit the config, a base that is quantized already, a device
            without the memory.
    """
    from safetensors import SafetensorError

    check_weights(base)
    card = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")
    try:
        return _load(base, card, getattr(torch, dtype), placement, slots)
    except torch.OutOfMemoryError as error:
        raise MedmindError(
            f"{base.name} does not fit into the card's memory in 4 bit", "close other programs that use the card"
        ) from error
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise MedmindError(f"{base.name} cannot be loaded: {error}", "check its config.json and its weights") from error


def _load(base: Base, card: torch.device, dtype: torch.dtype, placement: Placement, slots: int) -> Any:
    model = _skeleton(base, dtype)
    stored = _stored(base)
    _refuse_missing(base, model, stored)
    quantizer = _quantizer(dtype)
    quantizer.preprocess_model(model=model, dtype=dtype, device_map={"": card})
    decoder = model.get_decoder()
    streamed = list(decoder.layers[: placement.streamed])
    stream = LayerStream(streamed, card, slots) if streamed else None

    _Reader(model, card, dtype, stream, head_on_card=placement.head_on_card).read(stored)
    decoder.rotary_emb = type(decoder.rotary_emb)(config=model.config).to(card)  # no file holds its buffers
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"nothing says what {name} is")

    model.hf_quantizer = quantizer
    quantizer.postprocess_model(model)  # is_loaded_in_4bit: what makes PEFT choose its layers for bitsandbytes
    model.layer_stream = stream
    model.generation_config = _generation_config(base)
    model.config.use_cache = False
    model.requires_grad_(False)
    return model.eval()


def _skeleton(base: Base, dtype: torch.dtype) -> Any:
    """The model without any memory, as transformers builds it from config.json."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    config.name_or_path = base.path
    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        return build(config, dtype=dtype, attn_implementation="sdpa")


def _quantizer(dtype: torch.dtype) -> Any:
    """What replaces a model's linear layers and marks it as quantized, just as `from_pretrained` would."""
    from transformers import BitsAndBytesConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    configure: Any = BitsAndBytesConfig
    make: Any = AutoHfQuantizer.from_config
    return make(
        configure(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        pre_quantized=False,
    )


def _generation_config(base: Base) -> Any:
    """As `from_pretrained` finds it; without a file of its own it is in config.json."""
    from transformers import GenerationConfig

    read: Any = GenerationConfig.from_pretrained
    if (base.path / "generation_config.json").is_file():
        return read(base.path, local_files_only=True)
    return read(base.path, config_file_name="config.json", _from_model_config=True, local_files_only=True)


@dataclass(frozen=True)
class _Stored:
    """Where a tensor is."""

    shard: Path
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def _stored(base: Base) -> dict[str, _Stored]:
    """What the files hold, in the order in which they hold it.

    Raises:
        ValueError: a tensor that is not of floating-point numbers.
    """
    found: dict[str, _Stored] = {}
    for shard in weight_files(base.path):
        entries = safetensors_header(shard)
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
            if name.endswith(".weight") and not str(entries[name]["dtype"]).startswith(("F", "BF")):
                raise ValueError(f"{name} is of type {entries[name]['dtype']}, not of floating-point numbers")
            found[name] = _Stored(shard, *entries[name]["data_offsets"])
    return found


def _refuse_missing(base: Base, model: Any, stored: Mapping[str, _Stored]) -> None:
    missing = set(model.state_dict()) - stored.keys()
    if model.config.tie_word_embeddings and not missing >= {EMBEDDING, HEAD}:
        missing -= {EMBEDDING, HEAD}
    if missing:
        raise MedmindError(
            f"the weights of {base.name} do not fit its config.json: missing keys such as {min(missing)}",
            "download or copy it again",
        )


class _Reader:
    """Puts each tensor where it belongs in a model."""

    def __init__(
        self, model: Any, card: torch.device, dtype: torch.dtype, stream: LayerStream | None, *, head_on_card: bool
    ) -> None:
        from bitsandbytes.nn import Linear4bit

        self.model, self.card, self.dtype, self.stream = model, card, dtype, stream
        self.head_on_card = head_on_card
        self.tied = bool(model.config.tie_word_embeddings)
        self.linears = {
            f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, Linear4bit)
        }

    def read(self, stored: Mapping[str, _Stored]) -> None:
        """Fill the model; every tensor is let go before the next is read."""
        from safetensors import safe_open

        wanted = {name: stored[name] for name in stored if name in self.model.state_dict()}
        # One place for every matrix that is quantized, so that nothing that stays is allocated between what goes.
        largest = max((module.weight.numel() for module in self.linears.values()), default=0)
        staging = torch.empty(largest, dtype=self.dtype, device=self.card)
        with console.progress("quantizing the base", sum(at.size for at in wanted.values()), "B") as advance:
            for shard in dict.fromkeys(at.shard for at in wanted.values()):
                with safe_open(shard, framework="pt", device="cpu") as file:
                    for name, at in wanted.items():
                        if at.shard == shard and name not in (EMBEDDING, HEAD):
                            self._place(name, file.get_tensor(name), staging)
                            advance(at.size)
            del staging
            if self.card.type == "cuda":
                torch.cuda.empty_cache()
            self._place_ends({name: at.shard for name, at in wanted.items() if name in (EMBEDDING, HEAD)})
            advance(sum(wanted[name].size for name in (EMBEDDING, HEAD) if name in wanted))

    def _place(self, name: str, tensor: torch.Tensor, staging: torch.Tensor) -> None:
        """A tensor of a decoder layer, or the last norm."""
        linear = self.linears.get(name)
        if linear is None:
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, self._parameter(tensor))
            return
        from bitsandbytes.functional import quantize_4bit

        matrix = staging[: tensor.numel()].view(tensor.shape)
        matrix.copy_(tensor)
        packed, state = quantize_4bit(
            matrix, blocksize=BLOCK, compress_statistics=True, quant_type="nf4", quant_storage=torch.uint8
        )
        if self.stream is not None and linear in self.stream:
            self.stream.fill(linear, packed, state)
        else:
            bind(linear, packed, state)

    def _place_ends(self, shards: Mapping[str, Path]) -> None:
        """Embedding and head. Tied ones are what the files hold of the two, and stay apart if they differ there."""
        from safetensors import safe_open

        def read(name: str) -> torch.Tensor:
            with safe_open(shards[name], framework="pt", device="cpu") as file:
                tensor: torch.Tensor = file.get_tensor(name)
            return tensor

        rows, columns = self.model.get_input_embeddings().weight.shape
        embedding = HostEmbedding(rows, columns, self.dtype, self.card)
        embedding.weight.copy_(read(EMBEDDING if EMBEDDING in shards else HEAD))
        self.model.set_input_embeddings(embedding)

        own = read(HEAD) if shards.keys() >= {EMBEDDING, HEAD} else None
        if own is None or (self.tied and torch.equal(own.to(self.dtype), embedding.weight)):
            weight, memory = embedding.weight, embedding.memory
        elif self.head_on_card:
            self.model.get_output_embeddings().weight = self._parameter(own)
            return
        else:
            memory = Pages(embedding.memory.bytes.numel(), self.card)
            weight = memory.matrix(rows, columns, self.dtype)
            weight.copy_(own)
        if self.head_on_card:
            self.model.get_output_embeddings().weight = torch.nn.Parameter(weight.to(self.card), requires_grad=False)
        else:
            self.model.set_output_embeddings(HostHead(weight, memory, self.card))

    def _parameter(self, tensor: torch.Tensor) -> torch.nn.Parameter:
        """On the card; always a copy, since what was read may be the mapped file itself."""
        return torch.nn.Parameter(tensor.to(self.card, self.dtype, copy=True), requires_grad=False)
