"""An evaluated conversation as a file: token ids and their KV cache, good for one model and one adapter.

Written only when somebody asks for it, readable by its owner alone. Knows nothing of what the tokens say.
"""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

from medmind.artifacts import sha256
from medmind.errors import MedmindError
from medmind_runtime import private_file

_MAGIC = b"medmind-state/1\n"
_SAMPLES, _SAMPLE = 256, 1 << 16
_LARGEST_HEADER = 1 << 16
_DELETE = "it cannot be used; delete it, or save it anew"


def fingerprint(model: Path, adapter: Path | None, kv_type: str, *, flash: bool, own: bool) -> str:
    """What a state is good for: SHA-256 of the model's size, its first MiB and 256 samples of 64 KiB, and the adapter.

    The whole of 4 GB would take longer than what a state saves. Another training or quantization changes every block of
    a file; somebody who builds a file to match can do no more with it than with any other model file. Without flash
    attention, values lie otherwise in the cache; scripts/llama_attention.cpp (`own`) gives others than llama.cpp's, and
    what goes on from a state is to be what the conversation would have been.
    """
    values = "own " if own else "" if flash else "plain "
    digest = hashlib.sha256(f"{model.stat().st_size} {kv_type} {values}".encode())
    size = model.stat().st_size
    with model.open("rb") as file:
        digest.update(file.read(1 << 20))
        for sample in range(_SAMPLES):
            file.seek(sample * max(0, size - _SAMPLE) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    if adapter is not None:
        digest.update(sha256(adapter).encode())
    return digest.hexdigest()


def write(path: Path, key: str, tokens: list[int], cache: bytes) -> None:
    """Write a state, whole or not at all.

    Raises:
        MedmindError: the file cannot be written.
    """
    body = struct.pack(f"<{len(tokens)}i", *tokens) + cache
    header = {"model": key, "tokens": len(tokens), "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    private_file.write(path, _MAGIC + json.dumps(header).encode() + b"\n" + body)


def read(path: Path, key: str) -> tuple[list[int], bytes]:
    """The tokens and their cache.

    Raises:
        MedmindError: no state, a damaged one, or one of another model, adapter, KV cache type or kind of attention.
    """
    private_file.demand_regular(path)
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise MedmindError(f"{path} is no saved state of medmind", "give a file that medmind saved")
            model, count, size, digest = _told(file.readline(_LARGEST_HEADER))
            found = os.fstat(file.fileno()).st_size - file.tell()
            body = file.read() if (model, size) == (key, found) else b""
    except OSError as error:
        raise MedmindError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
        raise MedmindError(f"{path} is damaged: its first lines do not tell what is in it", _DELETE) from None
    if model != key:
        raise MedmindError(
            f"{path} was saved with another model, adapter, KV cache type or kind of attention",
            "start with those it was saved with; the kind of attention follows how llama.cpp was built, and in builds "
            "without medmind's own --threads: fewer than 8, or not",
        )
    if len(body) != size or not 0 <= 4 * count <= size or hashlib.sha256(body).hexdigest() != digest:
        raise MedmindError(f"{path} is damaged: its {found} bytes are not those that were saved", _DELETE)
    return list(struct.unpack_from(f"<{count}i", body)), body[4 * count :]


def _told(header: bytes) -> tuple[str, int, int, str]:
    """Key of the model, tokens, bytes of the body and their digest."""
    document: Any = json.loads(header)
    return document["model"], int(document["tokens"]), int(document["bytes"]), document["sha256"]
