"""Which model wrote a file of log-probabilities: llama.cpp's format holds no more than the size of its vocabulary.

Beside a file that medmind writes lies a small JSON with the model's digests. One without it can still be read; its
tokens then tell whether it is of another vocabulary of the same size.
"""

import difflib
from pathlib import Path
from typing import Any

from medmind.artifacts import read_json, write_json
from medmind.errors import MedmindError
from medmind_benchmarks.model_file import ModelFile
from medmind_benchmarks.row_codec import Base
from medmind_benchmarks.texts import Speaker

FORMAT = "medmind-kl-base/1"
_LOOKED_AT = 4
"""Chunks whose tokens are made anew."""
_AGREE = 0.98
"""Least share of tokens that come again. English under medmind-base's own vocabulary: 0.998 and more; under one of the
same pieces in another order: 0.95 and less."""


def beside(path: Path) -> Path:
    """Where what is known of a file's model lies."""
    return path.with_name(f"{path.name}.json")


def write(path: Path, digest: str, model: ModelFile, model_digest: str) -> None:
    """Say which model wrote a file.

    Args:
        path, digest: of the file.
        model, model_digest: that wrote it.
    """
    written_by = {"file": model.path.name, "digest": model_digest, "vocabulary": model.vocabulary, **_made_of(model)}
    write_json(beside(path), {"format": FORMAT, "digest": digest, "model": written_by})


def check(base: Base, digest: str, model: ModelFile, spoken: Speaker) -> str:
    """What speaks against comparing a model with a file, in words; empty when nothing does.

    Args:
        base, digest: of the file.
        model, spoken: one that is to be compared with it.

    Raises:
        MedmindError: the file is of another vocabulary, or what lies beside it is of another file.
    """
    place = beside(base.path)
    if not place.is_file():
        return _doubt(base, spoken)
    document = read_json(place)
    if document.get("format") != FORMAT or not isinstance(document.get("model"), dict):
        raise MedmindError(
            f"{place} does not say which model wrote {base.path.name}", "take it away, or write both anew"
        )
    if document.get("digest") != digest:
        raise MedmindError(
            f"{place} is of another file than {base.path.name}", "write both again with --save-kl-base, or take it away"
        )
    origin = document["model"]
    if origin.get("vocabulary") != model.vocabulary:
        raise MedmindError(
            f"{base.path} was written by {origin.get('file')}, whose vocabulary is another than that of {model.path}",
            "give a file made with a model of the same vocabulary",
        )
    known = _made_of(model)
    other = [kind for kind in known if known[kind] and origin.get(kind) and known[kind] != origin[kind]]
    return f"{base.path.name} was written by {origin.get('file')}, of another {' and '.join(other)}" if other else ""


def _made_of(model: ModelFile) -> dict[str, Any]:
    return {kind: model.metadata.get(f"medmind.{kind}.digest") for kind in ("base", "adapter")}


def _doubt(base: Base, spoken: Speaker) -> str:
    """Of a file alone: the text that its tokens spell is tokenized again, each chunk without its first token."""
    shares = []
    for chunk in base.tokens[:_LOOKED_AT].tolist():
        again = spoken.tokenize(spoken.spell(chunk[1:]))
        shares.append(difflib.SequenceMatcher(None, chunk[1:], again, autojunk=False).ratio())
    if sum(shares) / len(shares) >= _AGREE:
        return ""
    return f"{base.path.name} may be of another vocabulary of the same size: these models read its text as other tokens"
