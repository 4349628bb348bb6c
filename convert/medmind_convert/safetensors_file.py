"""Safetensors files before their weights: which tensor goes into which shard, and every byte of the headers.

Byte for byte what transformers' `save_pretrained` writes. Knows names, types and shapes; reads and writes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmind import base, console
from medmind_convert import ggml
from medmind_convert.architecture import Architecture
from medmind_convert.gguf_file import Layout, Slot
from medmind_convert.weights import Dtype

_HEADER_ALIGNMENT = 8


@dataclass(frozen=True)
class Shards:
    """A model's weights as files.

    Attributes:
        layouts: file name -> its header and the places of its tensors.
        index: the document of model.safetensors.index.json; None where there is a single file.
    """

    layouts: Mapping[str, Layout]
    index: Mapping[str, Any] | None


def plan_shards(arch: Architecture, dtypes: Mapping[str, Dtype], *, shard_max: int) -> Shards:
    """Lay out the files.

    Args:
        arch: the model.
        dtypes: type of each tensor.
        shard_max: bytes of tensors a file may hold at most; a tensor larger than that has a file to itself.
    """
    hub = console.require("huggingface_hub", "convert")
    shapes = {placement.source: placement.shape for placement in arch.placements}

    def size(name: str) -> int:
        return int(ggml.types()[dtypes[name]].size(shapes[name]))

    split = hub.split_state_dict_into_shards_factory(
        {name: size(name) for name in sorted(shapes, key=_place)},
        get_storage_size=lambda bytes: bytes,
        filename_pattern=base.SINGLE.replace(".", "{suffix}."),
        max_shard_size=shard_max,
    )
    layouts = {
        file: _layout({name: (dtypes[name], shapes[name], size(name)) for name in names})
        for file, names in split.filename_to_tensors.items()
    }
    if not split.is_sharded:
        return Shards(layouts, None)
    metadata = {"total_parameters": arch.parameters, **split.metadata}
    return Shards(layouts, {"metadata": metadata, "weight_map": split.tensor_to_filename})


def _place(name: str) -> list[tuple[bool, int, str]]:
    """Sorts names as transformers fills shards (`dot_natural_key`): part by part, numbers by their value and first."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]


def _layout(tensors: Mapping[str, tuple[Dtype, tuple[int, ...], int]]) -> Layout:
    """The file of these tensors: the widest types first, names in order, nothing between them (safetensors' Rust)."""
    kinds = ggml.types()
    order = sorted(tensors, key=lambda name: (-kinds[tensors[name][0]].bytes, tensors[name][0] != "BF16", name))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in order:
        dtype, shape, size = tensors[name]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    slots = tuple(
        Slot(
            name,
            kinds[tensors[name][0]],
            tensors[name][1],
            len(header) + entries[name]["data_offsets"][0],
            tensors[name][2],
            alignment=1,
        )
        for name in order
    )
    return Layout(header, slots, ())
