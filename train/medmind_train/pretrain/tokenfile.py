"""A corpus as one memory-mapped file of token ids, with a validation part split off by document hash.

Knows documents and ids; not what is learnt from them.
"""

import hashlib
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from medmind.artifacts import atomic_file, read_json, sha256, write_json
from medmind.console import progress
from medmind.errors import MedmindError
from medmind_train.pretrain.text import documents, records

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 512
_HELD_OUT = "validation.json"


@dataclass(frozen=True)
class HeldOut:
    """What is known of each held-out document, in the order of validation.bin: UTF-8 bytes, and its source or ''."""

    bytes: list[int]
    sources: list[str]


@dataclass(frozen=True)
class TokenFile:
    """Where the token ids of a corpus lie.

    Attributes:
        directory: holds train.bin and validation.bin, arrays of `dtype` without header, and validation.json.
        dtype: numpy name, uint16 or uint32.
        digest: of the text files, the tokenizer and the validation share; the file is built anew when it changes.
        documents, tokens: of both parts together.
        validation_documents, validation_tokens: of the validation part alone.
        validation_bytes: UTF-8 bytes of the validation text, the divisor of bits per byte.
    """

    directory: Path
    dtype: str
    digest: str
    documents: int
    tokens: int
    validation_documents: int
    validation_tokens: int
    validation_bytes: int

    def part(self, name: str) -> "NDArray[np.generic]":
        """The ids of `train` or `validation`, shape (tokens,), read from disk on demand."""
        import numpy as np

        return np.memmap(self.directory / f"{name}.bin", dtype=self.dtype, mode="r")

    def validation(self) -> HeldOut:
        """The documents of the validation part."""
        return HeldOut(**read_json(self.directory / _HELD_OUT))


def build(
    files: list[Path], tokenizer_model: Path, directory: Path, validation_share: float, cut: float | None
) -> TokenFile:
    """Encode `files` as `<s> document </s>` runs; reuse what lies in `directory` if it was made from the same input.

    A document is held out when the hash of its text falls below `validation_share`, whatever its neighbours. Where that
    holds none or all of them, the border moves by one document.

    Args:
        cut: what `border` gave for these files, where the caller has asked already.

    Raises:
        MedmindError: fewer than two documents.
    """
    import numpy as np
    from sentencepiece import SentencePieceProcessor

    inputs = [sha256(file) for file in [*files, tokenizer_model]]
    digest = hashlib.sha256(f"{inputs} {validation_share}".encode()).hexdigest()
    summary = directory / "tokens.json"
    if summary.exists() and (saved := read_json(summary)).get("digest") == digest:
        return TokenFile(directory=directory, **saved)
    cut = border(files, validation_share) if cut is None else cut
    directory.mkdir(parents=True, exist_ok=True)
    model = SentencePieceProcessor(model_file=str(tokenizer_model))
    dtype = "uint16" if model.get_piece_size() <= 1 << 16 else "uint32"
    held = HeldOut([], [])
    counts = dict.fromkeys(("documents", "tokens", "validation_documents", "validation_tokens", "validation_bytes"), 0)
    with (
        atomic_file(directory / "train.bin") as train,
        atomic_file(directory / "validation.bin") as validation,
        train.open("wb") as train_out,
        validation.open("wb") as validation_out,
        progress("encoding text", None, "docs") as advance,
    ):
        stream = records(files)
        while batch := list(islice(stream, _BATCH)):
            encoded = model.encode([text for text, _ in batch], num_threads=-1)
            for (text, source), ids in zip(batch, encoded, strict=True):
                row = np.array([model.bos_id(), *ids, model.eos_id()], dtype=dtype).tobytes()
                held_out = is_held_out(text, cut)
                (validation_out if held_out else train_out).write(row)
                counts["documents"] += 1
                counts["tokens"] += len(ids) + 2
                if held_out:
                    counts["validation_documents"] += 1
                    counts["validation_tokens"] += len(ids) + 2
                    counts["validation_bytes"] += len(text.encode())
                    held.bytes.append(len(text.encode()))
                    held.sources.append(source)
            advance(len(batch))
    write_json(directory / _HELD_OUT, asdict(held))
    result = TokenFile(directory=directory, dtype=dtype, digest=digest, **counts)
    write_json(summary, {key: value for key, value in asdict(result).items() if key != "directory"})
    return result


def border(files: list[Path], share: float) -> float:
    """The hash below which documents are held out: `share`, moved where it would leave one side empty.

    Raises:
        MedmindError: no text, or one document alone.
    """
    places = sorted({_hash(text) for text in documents(files)})
    if not places:
        raise MedmindError(f"there is no text in {', '.join(map(str, files))}", "give files that hold some")
    if len(places) < 2:
        raise MedmindError(
            "the text is one document, so none can be held out", "give more text: files of several pages, or JSON lines"
        )
    return min(max(share, places[1] if share <= places[0] else 0.0), places[-1])


def is_held_out(text: str, cut: float) -> bool:
    """Whether a document belongs to the validation part; `cut` as `border` gives it."""
    return _hash(text) < cut


def _hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
