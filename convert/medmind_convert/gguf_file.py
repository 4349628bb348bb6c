"""A GGUF before its weights: every byte of its header, and the place of every tensor. Quantizes nothing.

The gguf package packs metadata and tensor table. All sizes follow from names, shapes and types, so that the whole
header is known before a weight is read, and the weights can be written to their places in any order.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmind import console
from medmind_convert import ggml
from medmind_convert.ggml import Type
from medmind_convert.gguf_metadata import ARCHITECTURE, Metadata, write_metadata

ALIGNMENT = 32
"""GGUF's default alignment of tensor data, in bytes."""
HEADER_DIGEST = "medmind.digest.header"
"""Over all bytes before the first tensor, this digest's own text taken as zeros."""
TENSOR_DIGESTS = "medmind.digest.tensors"
"""Of each tensor with its padding, in the order of the tensor table."""


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies in a file.

    Attributes:
        name: llama.cpp's.
        kind: the type it is stored in.
        shape: rows first.
        offset: of its first byte in the file.
        size: bytes without padding.
        alignment: bytes of which the next tensor's place is a multiple.
    """

    name: str
    kind: Type
    shape: tuple[int, ...]
    offset: int
    size: int
    alignment: int = ALIGNMENT

    @property
    def padding(self) -> int:
        """Zero bytes that follow it."""
        return -self.size % self.alignment


@dataclass(frozen=True)
class Layout:
    """A whole file before its weights: every byte but those is known, and so is where they go.

    Attributes:
        header: metadata and tensor table, padded; digests are zeros yet.
        slots: the tensors in the file's order.
        digests: where in `header` the text of the header's own digest and of each tensor's begins; empty in a file
            without provenance.
    """

    header: bytes
    slots: tuple[Slot, ...]
    digests: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        last = self.slots[-1]
        return last.offset + last.size + last.padding

    def sealed(self, digests: Sequence[str]) -> bytes:
        """The header with the digests of all tensors, in the file's order, and with its own over all of that."""
        if not self.digests:
            return self.header
        header = bytearray(self.header)
        for at, digest in zip(self.digests[1:], digests, strict=True):
            header[at : at + len(digest)] = digest.encode("latin-1")
        own = sha256_text(bytes(header))
        header[self.digests[0] : self.digests[0] + len(own)] = own.encode()
        return bytes(header)

    def sealed_in(self, file: Path) -> list[str]:
        """The tensors' digests where a file of this name is this one, sealed; empty for any other."""
        if not self.digests or not file.is_file() or file.stat().st_size != self.size:
            return []
        with file.open("rb") as stream:
            header = stream.read(len(self.header))
        found = [header[at : at + len(NO_DIGEST)].decode("latin-1") for at in self.digests[1:]]
        return found if self.sealed(found) == header else []


def sha256_text(data: bytes) -> str:
    """`sha256:<hex>` of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


NO_DIGEST = "sha256:" + "0" * 64
"""Stands in the place of a digest that is not known yet, and of the header's own while that is computed."""


def padded(size: int) -> int:
    """Bytes that a tensor of `size` bytes takes in a file."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def sizes(types: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Bytes of each tensor in its ggml type, without padding."""
    kinds = ggml.types()
    return {name: kinds[kind].size(shapes[name]) for name, kind in types.items()}


def plan_file(
    metadata: Metadata, ftype: int, types: Mapping[str, str], *, split_max: int | None = None
) -> list[Layout]:
    """Lay out a file, or the shards of one.

    Args:
        metadata: what it says.
        ftype: number of its file type.
        types: tensor name -> ggml type, in the order of the file.
        split_max: bytes of tensors a shard may hold at most; None for a single file. As with llama.cpp's gguf-split, a
            tensor larger than that has a shard to itself.
    """
    shapes = {placement.target: placement.shape for placement in metadata.architecture.placements}
    kinds = {name: ggml.types()[kind] for name, kind in types.items()}
    shards: list[list[str]] = [[]]
    filled = 0
    for name, kind in kinds.items():
        padded = -(-kind.size(shapes[name]) // ALIGNMENT) * ALIGNMENT
        if split_max is not None and shards[-1] and filled + padded > split_max:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += padded
    return [_layout(metadata, ftype, shapes, kinds, shards, number) for number in range(len(shards))]


def above(layouts: Sequence[Layout], split_max: int) -> str | None:
    """Which file of a split will be larger than was asked for, and why; None where all keep to it.

    llama.cpp's gguf-split counts tensors only, and says nothing of either case.
    """
    large = [layout for layout in layouts if layout.size > split_max]
    if not large:
        return None
    most = max(large, key=lambda layout: layout.size)
    tensor = max(most.slots, key=lambda slot: slot.size)
    number = f"file {layouts.index(most) + 1} of {len(layouts)}"
    cause = (
        f"{tensor.name} alone takes {tensor.size:,}" if tensor.size > split_max else "metadata come on top of tensors"
    )
    others = f", and {len(large) - 1} more" if len(large) > 1 else ""
    return f"{number} takes {most.size:,} bytes{others}, above the {split_max:,} of --split-max-size: {cause}"


def _layout(
    metadata: Metadata,
    ftype: int,
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, Type],
    shards: Sequence[Sequence[str]],
    number: int,
) -> Layout:
    def describe(gguf: Any, writer: Any) -> None:
        if number == 0:
            write_metadata(gguf, writer, metadata, ftype, quantized=any(kind.quantized for kind in kinds.values()))
        if len(shards) > 1:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", len(shards))
            writer.add_int32("split.tensors.count", len(kinds))

    tensors = {name: (kinds[name], shapes[name]) for name in shards[number]}
    return pack(ARCHITECTURE, describe, tensors, digests=metadata.provenance is not None)


def pack(
    architecture: str,
    describe: Callable[[Any, Any], None],
    tensors: Mapping[str, tuple[Type, tuple[int, ...]]],
    *,
    digests: bool,
) -> Layout:
    """Lay out one file.

    Args:
        architecture: llama.cpp's name of it.
        describe: is given the gguf package and its writer, to which it adds the metadata.
        tensors: name -> type and shape, in the order of the file.
        digests: whether it carries them.
    """
    gguf = console.require("gguf", "convert")
    writer = gguf.GGUFWriter(None, architecture)
    describe(gguf, writer)
    if digests:
        writer.add_string(HEADER_DIGEST, NO_DIGEST)
        writer.add_array(TENSOR_DIGESTS, [NO_DIGEST] * len(tensors))
    for name, (kind, shape) in tensors.items():
        writer.add_tensor_info(name, shape, np.dtype(np.float32), kind.size(shape), raw_dtype=kind.number)
    packed = io.BytesIO()  # as `open_output_file` would open a file: headers of many tokens are not written twice
    writer.fout, writer.state = [packed], gguf.gguf_writer.WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    header = packed.getvalue()
    header += b"\0" * (-len(header) % ALIGNMENT)
    slots, offset = [], len(header)
    for name, (kind, shape) in tensors.items():
        slot = Slot(name, kind, shape, offset, kind.size(shape))
        slots.append(slot)
        offset += slot.size + slot.padding
    places: list[int] = []
    if digests:
        places.append(_after(header, HEADER_DIGEST) + 4 + 8)
        first = _after(header, TENSOR_DIGESTS) + 4 + 4 + 8 + 8
        places += [first + i * (8 + len(NO_DIGEST)) for i in range(len(tensors))]
    return Layout(header, tuple(slots), tuple(places))


def _after(header: bytes, key: str) -> int:
    """Where the value of a metadata key begins: its type, after the key's length and text."""
    packed = len(key).to_bytes(8, "little") + key.encode()
    return header.index(packed) + len(packed)
