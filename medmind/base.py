"""What a base model directory must hold, and where a base name leads: embedded, local or on the hub.

Knows file names, configs and safetensors headers; never loads a weight.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from medmind import digests, embedded
from medmind.artifacts import read_json, sha256
from medmind.errors import MedmindError

EMBEDDED_NAME = embedded.BASE
EMBEDDED_PATH = embedded.FOLDER / EMBEDDED_NAME
ARCHITECTURES = ("MistralForCausalLM", "LlamaForCausalLM")
"""What train can fine-tune and convert can write; everything else is refused by name."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_WHOLE_DIGEST_LIMIT = 1 << 30
_SAMPLE = 1 << 20
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors library itself

Kind = Literal["embedded", "local", "hub"]


@dataclass(frozen=True)
class Base:
    """A base model on this machine.

    Attributes:
        name: as the user wrote it (embedded name, directory or hub id).
        kind: where it came from.
        path: the directory that holds config.json and the weights.
        revision: the hub's commit, else None.
    """

    name: str
    kind: Kind
    path: Path
    revision: str | None = None


def resolve(name: str, *, revision: str | None = None, fetch: Callable[[str, str | None], tuple[Path, str]]) -> Base:
    """Find the base called `name` and check that it can be used.

    Args:
        name: `medmind-base`, a local directory, or a hub id `owner/model`.
        revision: branch, tag or commit on the hub.
        fetch: downloads a hub id at a revision and returns (directory, commit); see `medmind.hub.fetch_model`.

    Raises:
        MedmindError: nothing of that name, a directory that `check` refuses, or an embedded model that is damaged.
    """
    if name == EMBEDDED_NAME:
        base = Base(name, "embedded", digests.verified(name))
    elif Path(name).is_dir():
        base = Base(name, "local", Path(name).resolve())
    elif looks_like_hub_id(name):
        path, commit = fetch(name, revision)
        base = Base(name, "hub", path, commit)
    else:
        raise MedmindError(
            f"there is no base model '{name}'",
            f"give '{EMBEDDED_NAME}', a local model directory, or a hub id such as mistralai/Mistral-7B-Instruct-v0.3",
        )
    check(base.path)
    return base


def looks_like_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/repository` and no path of that name could be meant."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(part and part[0].isalnum() for part in parts)
        and "\\" not in name
        and not Path(parts[0]).exists()
    )


def check(path: Path) -> dict[str, Any]:
    """Refuse a directory that cannot serve as a base model; returns its config.json.

    Raises:
        MedmindError: no config, an architecture that is not supported, pickle weights only, a missing, truncated,
            damaged or escaping shard, an index that says otherwise than the shards, no tokenizer.
    """
    config = check_config(path)
    headers = {shard.name: safetensors_header(shard) for shard in weight_files(path)}
    if (path / INDEX).is_file():
        _match_index(path / INDEX, headers)
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise MedmindError(
            f"{path} holds no tokenizer", f"it needs one of: {', '.join(TOKENIZER_FILES)} (and tokenizer_config.json)"
        )
    return config


def check_config(path: Path) -> dict[str, Any]:
    """The config.json of a model directory; raises when it is missing or names no supported architecture."""
    if not (path / "config.json").is_file():
        raise MedmindError(f"{path} holds no config.json", "give a directory in the transformers format")
    config = read_json(path / "config.json")
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise MedmindError(
            f"{path / 'config.json'} gives architectures as {json.dumps(named)[:60]}", "it must be a list of texts"
        )
    architectures = named or ["(none named)"]
    if not set(architectures) & set(ARCHITECTURES):
        raise MedmindError(
            f"{path} is a {', '.join(architectures)}, which medmind does not support",
            f"supported: {', '.join(ARCHITECTURES)}",
        )
    return config


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file, as a safetensors index has it; a name that leaves the index's folder is refused."""
    weights = read_json(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise MedmindError(f"{index} names no weights", "download the model again")
    for tensor, name in weights.items():
        if not isinstance(name, str):
            raise MedmindError(
                f"{index} is broken: it gives {tensor} the file {json.dumps(name)[:60]}", "download the model again"
            )
        if PureWindowsPath(name).name != name or name in ("", ".", ".."):  # takes / and \\ and C: for what they are
            raise MedmindError(f"{index} names '{name}', a path outside its folder", "do not trust it")
    return weights


def index_names(index: Path) -> list[str]:
    """The files that a safetensors index names, in name order; as `weight_map`."""
    return sorted(set(weight_map(index).values()))


def _match_index(index: Path, headers: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an index that places a tensor where it does not lie, or shards that hold one it does not name."""
    placed = weight_map(index)
    for tensor, shard in placed.items():
        if tensor not in headers[shard]:
            lies = next((name for name, header in headers.items() if tensor in header), None)
            elsewhere = f": it lies in {lies}" if lies else ", nor does any other shard"
            raise MedmindError(
                f"{index} places {tensor} in {shard}, which does not hold it{elsewhere}", "download the model again"
            )
    for shard, header in headers.items():
        for tensor in header:
            if placed.get(tensor) != shard:
                raise MedmindError(
                    f"{index.with_name(shard)} holds {tensor}, which {index.name} places elsewhere or not at all",
                    "download the model again",
                )


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model directory, in name order; an index may name files of the directory only."""
    if (path / INDEX).is_file():
        names = index_names(path / INDEX)
        for name in names:
            if not (path / name).is_file():
                raise MedmindError(f"{path} lacks the shard {name}", "download the model again")
        return [path / name for name in names]
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    pickles = sorted(found.name for pattern in _PICKLES for found in path.glob(pattern))
    if pickles:
        raise MedmindError(
            f"{path} has its weights as pickle only ({pickles[0]}), which can run code when loaded",
            "convert them to safetensors on a machine you can lose, or take another copy of the model",
        )
    raise MedmindError(f"{path} holds no weights", f"it needs {SINGLE} or {INDEX} with its shards")


def safetensors_header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name → {dtype, shape, data_offsets}, `__metadata__` left out.

    Source: the format's page of the safetensors project: u64 little-endian header length, JSON, then the data, which
    the tensors fill in some order with no gap and no overlap (`Metadata::validate` of its Rust library).

    Raises:
        MedmindError: not safetensors, shorter than its header says, or tensors that overlap or leave bytes between or
            after them; the tensor is named.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size - 8, _HEADER_LIMIT):
                raise ValueError
            header: dict[str, Any] = dict(json.loads(stream.read(length)))
    except (struct.error, ValueError, TypeError, RecursionError):
        raise MedmindError(f"{file} is not a safetensors file, or is cut off", "download or copy it again") from None
    header.pop("__metadata__", None)
    _require_filled(file, {name: _span(file, name, entry) for name, entry in header.items()}, size - 8 - length)
    return header


def _span(file: Path, name: str, entry: Any) -> tuple[int, int]:
    """First byte of a tensor among the data, and the one after its last."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if isinstance(offsets, list) and len(offsets) == 2 and all(type(number) is int for number in offsets):
        begin, end = offsets
        if 0 <= begin <= end:
            return begin, end
    raise MedmindError(
        f"{file} is not a safetensors file, or is damaged: {name} has no offsets that can be",
        "download or copy it again",
    )


def _require_filled(file: Path, spans: Mapping[str, tuple[int, int]], size: int) -> None:
    """Each of `size` bytes of data must be one tensor's."""
    at, before = 0, ""
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != at:
            by = at - begin
            wrong = f"overlaps {before} by {by} bytes" if by > 0 else f"lies after {-by} bytes that are no tensor's"
            raise MedmindError(f"{name} in {file} {wrong}: the header is damaged", "download or copy it again")
        if end > size:
            raise MedmindError(
                f"{file} is cut off, or its header damaged: {name} ends {end - size} bytes after the file",
                "download or copy it again",
            )
        at, before = end, name
    if at < size:
        after = f"after {before}, its last tensor" if before else "and no tensor"
        raise MedmindError(f"{file} holds {size - at} bytes {after}: it is damaged", "download or copy it again")


def fingerprint(path: Path) -> str:
    """An identity for a base model: config, tokenizer and weights.

    Up to 1 GiB of weights every byte counts; beyond that each shard counts with its header, its size and its first and
    last MiB of data, so that a 7B is told from another in a moment and not in a minute.
    """
    digest = hashlib.sha256()
    shards = weight_files(path)
    whole = sum(shard.stat().st_size for shard in shards) <= _WHOLE_DIGEST_LIMIT
    for file in [path / "config.json", *(path / name for name in TOKENIZER_FILES if (path / name).is_file())]:
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    for shard in shards:
        if whole:
            digest.update(f"{shard.name} {sha256(shard)}\n".encode())
            continue
        size = shard.stat().st_size
        with shard.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            digest.update(f"{shard.name} {size} {length}\n".encode())
            digest.update(stream.read(length + _SAMPLE))
            stream.seek(max(0, size - _SAMPLE))
            digest.update(stream.read(_SAMPLE))
    return f"sha256:{digest.hexdigest()}"
