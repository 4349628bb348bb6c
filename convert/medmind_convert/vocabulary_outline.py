"""The tokens of a vocabulary read straight from its files, for what a GGUF's header takes: in a tenth of a second.

transformers takes seconds to load the same tokenizer. Where its rules could add or change a token, this declines.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmind import console
from medmind.artifacts import read_json
from medmind_convert.tokenizer import SPACE, TokenType, Vocabulary, refuse_other_kinds
from medmind_convert.tokenizer_fields import require_types, require_vocabulary

_CONFIG, _MODEL, _WHOLE = "tokenizer_config.json", "tokenizer.model", "tokenizer.json"
_ROLES = ("bos", "eos", "unk", "pad")


def read(path: Path, rows: int) -> Vocabulary | None:
    """Tokens, roles and chat template as `tokenizer.Tokenizer.vocabulary` has them; no scores, no types.

    Args:
        path: directory of the tokenizer.
        rows: of the embedding.

    Returns:
        None where only transformers can tell: a role that the config leaves to a class's default, a token named
        outside the vocabulary, several chat templates.

    Raises:
        MedmindError: the tokenizer is of a kind that cannot be converted, or a file is no JSON.
    """
    if not (path / _CONFIG).is_file() or (path / "additional_chat_templates").exists():
        return None
    require_types(path)
    require_vocabulary(path)
    config = read_json(path / _CONFIG)
    pieces = _pieces(path)
    if pieces is None or _adds_tokens(path, config, pieces) or 1 + max(pieces.values()) > rows:
        return None
    if any(f"{role}_token" not in config for role in ("bos", "eos", "unk")) or not config["eos_token"]:
        return None
    template = config.get("chat_template")
    if (path / "chat_template.jinja").is_file():
        template = (path / "chat_template.jinja").read_text(encoding="utf-8")
    if not isinstance(template, str | None) or (path / "chat_template.json").exists():
        return None
    tokens = [f"[PAD{i}]" for i in range(rows)]
    for piece, i in pieces.items():
        tokens[i] = piece
    roles = {role: _text(config.get(f"{role}_token")) for role in _ROLES}
    ids = {role: pieces[text] if text else None for role, text in roles.items()}
    return Vocabulary(
        tokens=tokens,
        scores=[0.0] * rows,
        types=[int(TokenType.NORMAL)] * rows,
        bos=ids["bos"],
        eos=ids["eos"] or 0,
        unk=ids["unk"],
        pad=ids["pad"],
        add_bos=True,
        add_eos=False,
        add_space_prefix=False,
        chat_template=template,
    )


def _pieces(path: Path) -> dict[str, int] | None:
    """Piece -> id, added tokens with it; None where a token is written otherwise in a GGUF than in the file."""
    if (path / _WHOLE).is_file():
        document = read_json(path / _WHOLE)
        refuse_other_kinds(document, path)
        added = document.get("added_tokens") or []
        if any(SPACE in token["content"] for token in added):
            return None
        return {**document["model"]["vocab"], **{token["content"]: token["id"] for token in added}}
    sentencepiece = console.require("sentencepiece", "convert")
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto((path / _MODEL).read_bytes())
    except Exception:  # transformers' loader says what is wrong with it
        return None
    return {processor.IdToPiece(i): i for i in range(processor.GetPieceSize())} or None


def _adds_tokens(path: Path, config: Mapping[str, Any], pieces: Mapping[str, int]) -> bool:
    """Whether a file beside the vocabulary names a token that is not in it, or at another place."""
    if (path / "added_tokens.json").exists():
        return True
    more: list[Any] = [config.get(f"{role}_token") for role in _ROLES]
    names = path / "special_tokens_map.json"
    for document in (config, read_json(names) if names.is_file() else {}):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            listed = document.get(key) or []
            more += listed.values() if isinstance(listed, Mapping) else listed
        if any(
            _text(document[f"{role}_token"]) != _text(config.get(f"{role}_token"))
            for role in _ROLES
            if f"{role}_token" in document
        ):
            return True
    if any(text and text not in pieces for text in map(_text, more)):
        return True
    decoder = config.get("added_tokens_decoder") or {}
    return any(pieces.get(_text(token)) != int(i) or SPACE in _text(token) for i, token in decoder.items())


def _text(token: Any) -> str:
    """A token as a config gives it: a text, an object with its text, or nothing."""
    return str(token.get("content") or "") if isinstance(token, Mapping) else str(token or "")
