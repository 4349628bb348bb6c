"""What must hold of a GGUF file before llama.cpp may see it: magic, version, counts that fit, every tensor whole.

Standard library only, reads no tensor. Knows nothing of what the metadata mean.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medmind.errors import MedmindError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_STRING, _ARRAY, _FLOAT32 = 8, 9, 6
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each scalar metadata type; source: `enum gguf_type` of ggml/include/gguf.h."""
_WHOLE = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
"""The whole-number types among them."""
_BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)},
    **{23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18)},
}
"""ggml type → (elements, bytes) of a block; source: ggml.c's type traits. One not listed is left to llama.cpp."""
_COPY_AGAIN = "copy or convert it again"


class _CutOffError(Exception):
    """The header claims more bytes than the file has."""


class _Reader:
    """A cursor over the mapped file that never reads past its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def skip(self, count: int) -> int:
        """Move on by `count` bytes; returns where they began."""
        start = self.at
        if count > len(self.data) - start:
            raise _CutOffError
        self.at = start + count
        return start

    def u32(self) -> int:
        value: int = struct.unpack_from("<I", self.data, self.skip(4))[0]
        return value

    def u64(self) -> int:
        value: int = struct.unpack_from("<Q", self.data, self.skip(8))[0]
        return value

    def string(self) -> bytes:
        length = self.u64()
        start = self.skip(length)
        return self.data[start : start + length]

    def skip_strings(self, count: int) -> None:
        """Move on by so many texts: a vocabulary has a quarter of a million, so this loop calls nothing else."""
        data, at, length_at = self.data, self.at, struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                at += 8 + length_at(data, at)[0]
        except (struct.error, OverflowError):
            raise _CutOffError from None
        self.skip(at - self.at)


@dataclass(frozen=True)
class TensorPlace:
    """One line of a file's tensor table.

    Attributes:
        name: the tensor's.
        kind: number of its ggml type.
        shape: columns first, as the format has it.
        offset: of its first byte in the file.
        size: bytes without padding; 0 for a type that is not known here.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a file says before its first tensor.

    Attributes:
        path: the file.
        scalars: its text and whole-number metadata.
        places: metadata key -> first byte of its value, after the value's type.
        tensors: the tensor table, in its order.
        start: first byte after the header and its padding.
        alignment: of each tensor's first byte.
    """

    path: Path
    scalars: Mapping[str, str | int]
    places: Mapping[str, int]
    tensors: tuple[TensorPlace, ...]
    start: int
    alignment: int

    @property
    def end(self) -> int:
        """How long the file must be for every tensor to be whole, without the padding of the last."""
        return max((tensor.offset + tensor.size for tensor in self.tensors), default=self.start)


def check(path: Path) -> None:
    """Refuse what is no whole GGUF file; see `read`."""
    read(path)


def scalars(path: Path) -> dict[str, str | int]:
    """The text and whole-number metadata of a file; see `read`."""
    return dict(read(path).scalars)


def read(path: Path) -> Header:
    """The header of a whole GGUF file.

    Raises:
        MedmindError: missing, not a file, unreadable, not GGUF, of another version or byte order, cut off, or with a
            header that claims more than the file can hold.
    """
    if not path.exists():
        raise MedmindError(f"{path} does not exist", "models are made by: medmind-convert gguf q4_k_m")
    if not path.is_file():
        raise MedmindError(f"{path} is not a file", "give a .gguf file")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise MedmindError(f"{path} is not a GGUF file", "make one with: medmind-convert gguf q4_k_m")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _header(_Reader(data), path)
    except _CutOffError:
        raise MedmindError(
            f"{path} is cut off: its {size} bytes end inside the header, or the header is damaged", _COPY_AGAIN
        ) from None
    except OSError as error:
        raise MedmindError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    if header.end > size:
        raise MedmindError(f"{path} is cut off: it has {size} bytes of {header.end}", _COPY_AGAIN)
    return header


def strings(header: Header, key: str) -> list[bytes]:
    """The texts of an array, byte for byte; none where there is no such key.

    Raises:
        MedmindError: it is no array of texts.
    """
    place = header.places.get(key)
    if place is None:
        return []
    with header.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        reader.at = place - 4
        if reader.u32() != _ARRAY or reader.u32() != _STRING:
            raise MedmindError(f"{header.path} is damaged: its {key} is no list of texts", _COPY_AGAIN)
        return [reader.string() for _ in range(reader.u64())]


def number(header: Header, key: str) -> float | None:
    """A 32-bit float; None where there is none, or a value of another kind."""
    place = header.places.get(key)
    if place is None:
        return None
    with header.path.open("rb") as file:
        file.seek(place - 4)
        (kind,) = struct.unpack("<I", file.read(4))
        return float(*struct.unpack("<f", file.read(4))) if kind == _FLOAT32 else None


def _header(reader: _Reader, path: Path) -> Header:
    reader.skip(len(_MAGIC))
    version = reader.u32()
    if version not in _VERSIONS:
        raise MedmindError(f"{path} has the GGUF version {version}, medmind reads 2 and 3", "convert the model again")
    count, pairs = reader.u64(), reader.u64()
    found: dict[str, str | int] = {}
    places: dict[str, int] = {}
    for _ in range(pairs):
        key, kind = reader.string().decode("utf-8", "replace"), reader.u32()
        places[key] = reader.at
        if kind == _STRING:
            found[key] = reader.string().decode("utf-8", "replace")
        elif kind in _WHOLE:
            form = _WHOLE[kind]
            found[key] = struct.unpack_from(form, reader.data, reader.skip(struct.calcsize(form)))[0]
        else:
            _skip_value(reader, kind, path)
    alignment = found.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise MedmindError(f"{path} is damaged: its alignment is {alignment}", _COPY_AGAIN)
    table = [_tensor(reader, path) for _ in range(count)]
    start = -(-reader.at // alignment) * alignment if table else reader.at
    tensors = [TensorPlace(name, kind, shape, start + at, size) for name, kind, shape, at, size in table]
    return Header(path, found, places, tuple(tensors), start, alignment)


def _tensor(reader: _Reader, path: Path) -> tuple[str, int, tuple[int, ...], int, int]:
    """Name, type, shape, offset from the header's end and size of one tensor."""
    name, dimensions = reader.string(), reader.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise MedmindError(f"{path} is damaged: the tensor {name[:64]!r} has {dimensions} dimensions", _COPY_AGAIN)
    shape = tuple(reader.u64() for _ in range(dimensions))
    kind = reader.u32()
    block, block_bytes = _BLOCKS.get(kind, (1, 0))
    size = math.prod(shape) // block * block_bytes
    return name.decode("utf-8", "replace"), kind, shape, reader.u64(), size


def _skip_value(reader: _Reader, kind: int, path: Path) -> None:
    if kind == _STRING:
        reader.skip(reader.u64())
    elif kind == _ARRAY:
        inner, count = reader.u32(), reader.u64()
        if inner == _STRING:
            reader.skip_strings(count)
        elif inner in _SCALAR_BYTES:
            reader.skip(count * _SCALAR_BYTES[inner])
        else:
            raise MedmindError(f"{path} is damaged: it holds an array of the unknown type {inner}", _COPY_AGAIN)
    elif kind in _SCALAR_BYTES:
        reader.skip(_SCALAR_BYTES[kind])
    else:
        raise MedmindError(f"{path} is damaged: it holds a value of the unknown type {kind}", _COPY_AGAIN)
