"""Encoded rows in a file of the cache: safetensors, mapped when read. Knows the file; encodes nothing itself."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind.base import safetensors_header
from medmind_train import cache, encoding, examples
from medmind_train.data import Row
from medmind_train.encoding import Encoded
from medmind_train.examples import Arrays, Examples

KIND = "tokens"
FORMAT = "medmind-tokens/1"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
)
_TYPES = {
    "ids": np.int32,
    "bounds": np.int64,
    "answers": np.int32,
    "complete": np.uint8,
    "rows": np.int32,
    "about": np.uint8,
}


def encode(tokenizer: Any, base: Path, rows: Sequence[Row], digest: str, *, context: int, system: str) -> Encoded:
    """`encoding.encode`, kept by the digest of everything that it depends on.

    Args:
        base: where the tokenizer was loaded from.
        digest: stands for `rows`, their texts and their order.
    """
    files = {name: _digest(base / name) for name in _TOKENIZER_FILES if (base / name).is_file()}
    code = cache.code(Path(str(module.__file__)) for module in (encoding, examples))
    libraries = [version("transformers"), version("tokenizers")]
    key = cache.key(FORMAT, digest, files, str(tokenizer.chat_template), system, context, code, libraries)
    return cache.kept(
        KIND,
        key,
        lambda path: read(path, key),
        lambda: encoding.encode(tokenizer, rows, context=context, system=system),
        lambda path, encoded: write(path, key, encoded),
    )


def write(path: Path, key: str, encoded: Encoded) -> None:
    """Write encoded rows as one safetensors file."""
    from safetensors.numpy import save

    arrays = encoded.examples.arrays
    about = {
        "names": arrays.names,
        "cut": encoded.cut,
        "too_long": encoded.too_long,
        "control": encoded.control,
    }
    tensors: dict[str, NDArray[Any]] = {
        "ids": arrays.ids,
        "bounds": arrays.bounds,
        "answers": arrays.answers,
        "complete": arrays.complete,
        "rows": arrays.rows,
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }
    metadata = {"format": FORMAT, "key": key, "digest": _content(tensors)}
    path.write_bytes(save(tensors, metadata=metadata))


def read(path: Path, key: str) -> Encoded:
    """Read what `write` wrote; the token ids stay in the file, mapped.

    Raises:
        ValueError: another file, or one whose content is not what was written.
        MedmindError: no safetensors file, or one that is cut off.
        OSError: no file.
    """
    metadata, start = _metadata(path)
    header = safetensors_header(path)
    if header.keys() != _TYPES.keys() or (metadata.get("format"), metadata.get("key")) != (FORMAT, key):
        raise ValueError(f"{path} is no cache of these tokens")
    tensors: dict[str, NDArray[Any]] = {}
    for name, kind in _TYPES.items():
        begin, end = header[name]["data_offsets"]
        count = (end - begin) // np.dtype(kind).itemsize
        # A file cannot be mapped where there is nothing in it.
        tensors[name] = (
            np.memmap(path, kind, "r", start + begin, (count,))
            if count and name == "ids"
            else np.fromfile(path, kind, count, offset=start + begin)
        )
    if metadata.get("digest") != _content(tensors):
        raise ValueError(f"{path} is damaged")
    about = json.loads(tensors["about"].tobytes())
    arrays = Arrays(
        ids=tensors["ids"],
        bounds=tensors["bounds"],
        answers=tensors["answers"],
        complete=tensors["complete"],
        rows=tensors["rows"],
        names=tuple(about["names"]),
    )
    return Encoded(Examples(arrays), about["cut"], tuple(about["too_long"]), tuple(about["control"]))


def _metadata(path: Path) -> tuple[dict[str, str], int]:
    """The `__metadata__` of a safetensors file, and where its data begins."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} is no safetensors file")
        document = json.loads(file.read(length))
    if not isinstance(document, dict) or not isinstance(document.get("__metadata__"), dict):
        raise ValueError(f"{path} has no metadata")
    return document["__metadata__"], 8 + length


def _content(tensors: dict[str, NDArray[Any]]) -> str:
    hasher = hashlib.sha256()
    for name in sorted(_TYPES):
        hasher.update(f"{name} {len(tensors[name])}\n".encode())
        hasher.update(np.ascontiguousarray(tensors[name]).data)
    return hasher.hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
