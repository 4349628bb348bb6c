"""Importance matrices as llama.cpp stores them: for each tensor the summed squares of what entered it, by column.

Knows both file formats, GGUF and the older .dat; collects nothing. Source: tools/imatrix/imatrix.cpp and
common/imatrix-loader.cpp of llama.cpp.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind import artifacts, console
from medmind.errors import MedmindError

SUFFIX = ".imatrix.gguf"
_SUMS, _COUNTS = ".in_sum2", ".counts"
_LONGEST_NAME = 4096
_DAMAGED = "make it again with: medmind-convert imatrix"


@dataclass(frozen=True)
class Entry:
    """What entered one tensor.

    Attributes:
        sums: shape (matrices × columns,), the sum over tokens of the squared activations; one matrix but for experts.
        counts: shape (matrices,), the number of tokens.
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.float32]


@dataclass(frozen=True)
class Imatrix:
    """An importance matrix.

    Attributes:
        entries: tensor name in llama.cpp's words (`blk.0.attn_q.weight`) -> what entered it.
        datasets: names of the texts.
        chunks: how many chunks of text were read.
        chunk_size: tokens in one; 0 where the file does not say.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk_size: int = 0
    notes: Mapping[str, str | int] = field(default_factory=dict)

    def for_tensor(self, name: str, width: int) -> NDArray[np.float32] | None:
        """How much an error in each column of a tensor counts: the mean square of what entered it, shape (width,).

        As llama-quantize takes it (`load_imatrix` in tools/quantize/quantize.cpp): sum / count, 1 where nothing came.

        Returns:
            None for a tensor that the text did not reach (the embedding, or an output layer that was not collected).

        Raises:
            MedmindError: the matrix is of another width: it was made for another model.
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        if entry.sums.shape != (width,) or entry.counts.shape != (1,):
            raise MedmindError(
                f"the importance matrix has {entry.sums.size} values for {name}, the tensor {width} columns",
                "it was made for another model: make one with medmind-convert imatrix",
            )
        count = entry.counts[0]
        if count <= 0:
            return np.ones(width, np.float32)
        return np.ascontiguousarray(entry.sums / count, np.float32)


_LONGEST_TEXT = 127
"""Bytes of a text that llama-quantize notes: an override's value has 128, the last of them zero."""


@dataclass(frozen=True)
class Weighting:
    """What a quantized file says of the matrix that it was weighted by, as llama-quantize writes it.

    Attributes:
        file: its path as it was given.
        dataset: name of its first text; empty where it has none.
        entries: tensors in it.
        chunks: of text; 0 where it does not say.
    """

    file: str
    dataset: str
    entries: int
    chunks: int

    def keys(self) -> dict[str, str | int]:
        """The keys in llama-quantize's order (`main` of tools/quantize/quantize.cpp), texts cut to its length."""
        found: dict[str, str | int] = {"quantize.imatrix.file": _cut(self.file)}
        if self.dataset:
            found["quantize.imatrix.dataset"] = _cut(self.dataset)
        found["quantize.imatrix.entries_count"] = self.entries
        if self.chunks:
            found["quantize.imatrix.chunks_count"] = self.chunks
        return found


def weighting(file: Path, imatrix: Imatrix) -> Weighting:
    """What a file weighted by this matrix says of it."""
    return Weighting(str(file), imatrix.datasets[0] if imatrix.datasets else "", len(imatrix.entries), imatrix.chunks)


def _cut(text: str) -> str:
    return text.encode()[:_LONGEST_TEXT].decode(errors="ignore")


def read_imatrix(path: Path) -> Imatrix:
    """Read an importance matrix of either format.

    Raises:
        MedmindError: no such file, cut off, of neither format, or with values that are not finite.
    """
    if not path.is_file():
        raise MedmindError(f"{path} is no file", "give an importance matrix, made by: medmind-convert imatrix")
    with path.open("rb") as stream:
        is_gguf = stream.read(4) == b"GGUF"
    found = _read_gguf(path) if is_gguf else _read_dat(path)
    if not found.entries:
        raise MedmindError(f"{path} holds no importance matrix", _DAMAGED)
    for name, entry in found.entries.items():
        if not (np.isfinite(entry.sums).all() and (entry.sums >= 0).all() and np.isfinite(entry.counts).all()):
            raise MedmindError(f"{path} holds NaN, infinity or a negative square for {name}", _DAMAGED)
    return found


def _read_gguf(path: Path) -> Imatrix:
    gguf = console.require("gguf", "convert")
    try:
        reader = gguf.GGUFReader(path)
        metadata = {key: reader.fields[key].contents() for key in reader.fields if not key.startswith("GGUF.")}
        tensors = {tensor.name: (tensor.tensor_type.name, np.array(tensor.data)) for tensor in reader.tensors}
    except Exception as error:  # numpy, struct or unicode, wherever the file happens to end
        raise MedmindError(f"{path} is cut off or damaged", _DAMAGED) from error
    if metadata.get("general.type") != "imatrix":
        raise MedmindError(f"{path} is a GGUF, and no importance matrix", "medmind-convert imatrix makes one")
    sums, counts = (
        {name.removesuffix(end): value for name, (_, value) in tensors.items() if name.endswith(end)}
        for end in (_SUMS, _COUNTS)
    )
    if sums.keys() != counts.keys() or any(kind != "F32" for kind, _ in tensors.values()):
        raise MedmindError(f"{path} has sums without counts, or in another type than F32", _DAMAGED)
    entries = {name: Entry(sums[name].reshape(-1), counts[name].reshape(-1)) for name in sums}
    for name, entry in entries.items():
        if not entry.counts.size or entry.sums.size % entry.counts.size:
            raise MedmindError(f"{path} has {entry.sums.size} sums and {entry.counts.size} counts for {name}", _DAMAGED)
    return Imatrix(
        entries,
        tuple(metadata.get("imatrix.datasets") or ()),
        int(metadata.get("imatrix.chunk_count", 0)),
        int(metadata.get("imatrix.chunk_size", 0)),
        {key: value for key, value in metadata.items() if key.startswith("medmind.")},
    )


def _read_dat(path: Path) -> Imatrix:
    """int32 count, then per entry: name, calls, values; values are means times calls."""
    data = path.read_bytes()
    place = 0

    def take(form: str) -> Any:
        nonlocal place
        values = struct.unpack_from(form, data, place)
        place += struct.calcsize(form)
        return values[0]

    entries: dict[str, Entry] = {}
    try:
        for _ in range(take("<i")):
            length = take("<i")
            if not 0 < length < _LONGEST_NAME:
                raise ValueError
            name = take(f"<{length}s").decode("utf-8")
            calls, count = take("<i"), take("<i")
            if count < 1:
                raise ValueError
            sums = np.frombuffer(data, "<f4", count, place).astype(np.float32)
            place += 4 * count
            entries[name] = Entry(sums, np.array([max(calls, 1)], np.float32))  # 0: the sums are means already
    except (struct.error, ValueError):  # a UnicodeDecodeError is a ValueError
        raise MedmindError(f"{path} is no importance matrix, or is cut off", _DAMAGED) from None
    chunks, dataset = 0, ""
    try:
        chunks = take("<i")
        dataset = take(f"<{take('<i')}s").decode("utf-8")
    except (struct.error, UnicodeDecodeError):  # older files end after the entries
        pass
    return Imatrix(entries, (dataset,) if dataset else (), chunks)


def write_imatrix(path: Path, imatrix: Imatrix) -> None:
    """Write an importance matrix as llama-imatrix writes its GGUF, entries in name order; atomically."""
    gguf = console.require("gguf", "convert")
    with artifacts.atomic_file(path) as partial:
        writer = gguf.GGUFWriter(partial, arch="")
        writer.kv_data[0].pop("general.architecture", None)  # the format has none
        writer.add_type("imatrix")
        if imatrix.datasets:  # the package cannot write an empty array
            writer.add_array("imatrix.datasets", list(imatrix.datasets))
        writer.add_uint32("imatrix.chunk_count", imatrix.chunks)
        writer.add_uint32("imatrix.chunk_size", imatrix.chunk_size)
        for key, value in imatrix.notes.items():
            writer.add_uint32(key, value) if isinstance(value, int) else writer.add_string(key, value)
        for name, values in _tensors(imatrix):
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _tensors(imatrix: Imatrix) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name in sorted(imatrix.entries):
        entry = imatrix.entries[name]
        matrices = len(entry.counts)
        yield f"{name}{_SUMS}", entry.sums.reshape(matrices, -1)
        yield f"{name}{_COUNTS}", entry.counts.reshape(matrices, 1)
