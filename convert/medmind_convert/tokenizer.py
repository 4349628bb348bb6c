"""The base's tokenizer as transformers loads it: token ids, renderings, and what llama.cpp must be told about it.

Knows tokenizer files; the vocabulary's scores are `scores.py`'s, the comparison with llama.cpp is `check.py`'s.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from medmind import console
from medmind.base import TOKENIZER_FILES
from medmind.errors import MedmindError
from medmind_convert import scores
from medmind_convert.tokenizer_fields import require_types, require_vocabulary

SPACE = "▁"
"""SentencePiece's stand-in for a space."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class TokenType(IntEnum):
    """llama.h's `llama_token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece-BPE vocabulary as GGUF's tokenizer model `llama` wants it; lists are in order of token id."""

    tokens: list[str]
    scores: list[float]
    types: list[int]
    bos: int | None
    eos: int
    unk: int | None
    pad: int | None
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None


class Tokenizer:
    """One tokenizer, loaded by transformers from a directory.

    Args:
        path: directory with tokenizer.json or tokenizer.model.

    Raises:
        MedmindError: transformers cannot load it, or it is of a kind that GGUF's `llama` model cannot express.
    """

    def __init__(self, path: Path) -> None:
        transformers = console.require("transformers", "convert")
        self.path = path
        require_types(path)
        try:
            self._hf = transformers.AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False, use_fast=True
            )
            backend = json.loads(self._hf.backend_tokenizer.to_str())
            self._hf("word")  # some faults show only here
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # whatever the parsers raise, a panic of the Rust one too: the user's to mend
            _blame_config(transformers, path)
            require_vocabulary(path)
            raise MedmindError(
                f"the tokenizer in {path} does not load: {_reason(error)}", "download it again"
            ) from error
        refuse_other_kinds(backend, path)
        self._model: Mapping[str, Any] = backend["model"]
        self._added: Sequence[Mapping[str, Any]] = backend["added_tokens"]
        if self._hf.eos_token_id is None:
            raise MedmindError(
                f"the tokenizer in {path} names no end-of-sequence token", "a model must know where to stop"
            )

    @property
    def chat_template(self) -> str | None:
        """The chat template in force; where there are several, the default one."""
        template = self._hf.chat_template
        return template.get("default") if isinstance(template, dict) else template

    @property
    def bos_text(self) -> str:
        """The text of the token that begins a sequence; empty where there is none."""
        return self._hf.bos_token or ""

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered text; control tokens are read, none is added."""
        ids: list[int] = self._hf(text, add_special_tokens=False).input_ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, for many texts at once, from several threads if one likes.

        By the tokenizer behind transformers' own, which `encode` calls too: what transformers puts around it takes
        most of the time, and sets the shared tokenizer's truncation at every call.
        """
        made = self._hf.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in made]

    def pieces(self) -> list[str]:
        """The texts of all tokens but control tokens and single bytes, in order of token id."""
        special = {str(token["content"]) for token in self._added}
        pieces = sorted(self._model["vocab"].items(), key=lambda item: item[1])
        return [p.replace(SPACE, " ") for p, _ in pieces if p not in special and not _BYTE.fullmatch(p)]

    @property
    def controls(self) -> list[str]:
        """The texts of the added tokens, control tokens and the user's own, in order of token id."""
        return [str(token["content"]) for token in sorted(self._added, key=lambda token: int(token["id"]))]

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """The chat template applied by transformers.

        Raises:
            MedmindError: the template refuses the messages.
        """
        try:
            text: str = self._hf.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template is a program: jinja's errors and its own raise_exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise MedmindError(f"the chat template in {self.path} fails: {reason}") from error
        return text

    def vocabulary(self, rows: int) -> Vocabulary:
        """The vocabulary, filled up to the embedding's rows with unused tokens.

        Raises:
            MedmindError: the tokenizer has more tokens than the embedding has rows.
        """
        ids: dict[str, int] = dict(self._model["vocab"])
        added = {int(token["id"]): token for token in self._added}
        count = 1 + max([*ids.values(), *added])
        if count > rows:
            raise MedmindError(
                f"the tokenizer in {self.path} has {count} tokens, the embedding {rows} rows",
                "tokenizer and weights are not of the same model",
            )
        tokens = [f"[PAD{i}]" for i in range(rows)]
        types = [int(TokenType.UNUSED)] * rows
        values = [-10000.0] * rows
        by_piece = scores.find(self.path, ids, self._model["merges"])
        for piece, i in ids.items():
            tokens[i] = piece
            values[i] = by_piece[piece]
            types[i] = TokenType.BYTE if _BYTE.fullmatch(piece) else TokenType.NORMAL
        for i, token in added.items():
            text = str(token["content"])
            special = bool(token["special"])
            # llama.cpp looks for user-defined tokens before it turns spaces into ▁, tokenizers after, if normalized
            tokens[i] = text.replace(SPACE, " ") if token["normalized"] and not special else text
            values[i] = by_piece.get(text, 0.0) if special else -1000.0
            types[i] = TokenType.CONTROL if special else TokenType.USER_DEFINED
        unk = self._hf.unk_token_id
        if unk is not None:
            types[unk] = TokenType.UNKNOWN
        bare = self.encode("word")
        whole: list[int] = self._hf("word").input_ids
        return Vocabulary(
            tokens=tokens,
            scores=values,
            types=types,
            bos=self._hf.bos_token_id,
            eos=self._hf.eos_token_id,
            unk=unk,
            pad=self._hf.pad_token_id,
            add_bos=whole[: len(whole) - len(bare)][:1] == [self._hf.bos_token_id] and len(whole) > len(bare),
            add_eos=len(whole) > len(bare) and whole[-1] == self._hf.eos_token_id,
            add_space_prefix=self._prefixes_after_special(),
            chat_template=self.chat_template,
        )

    def _prefixes_after_special(self) -> bool:
        """Whether text right after a control token begins with a space of the tokenizer's own.

        llama.cpp has one switch for the start of a text and for every place after a control token; tokenizers has two
        ("first" and "always"). A rendered prompt starts with a control token, so the second decides.
        """
        control = self.bos_text or str(self._hf.eos_token)
        after = self._hf.convert_ids_to_tokens(self.encode(f"{control}word"))[1:]
        return "".join(after).startswith(SPACE)


def directory(base: Path, adapter: Path | None) -> Path:
    """Where the tokenizer of a model lies: beside the adapter if it brought its own, else in the base."""
    if adapter is None or not (adapter / "tokenizer_config.json").is_file():
        return base
    return adapter if any((adapter / name).is_file() for name in TOKENIZER_FILES) else base


def _blame_config(transformers: Any, path: Path) -> None:
    """Raise where config.json, which transformers reads to load a tokenizer, is what it cannot load."""
    if (path / "config.json").is_file():
        try:
            transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise MedmindError(
                f"{path / 'config.json'} does not load: {_reason(error)}", "mend the field, or download it again"
            ) from error


def _reason(error: BaseException) -> str:
    """Its text on one line: transformers names a field on the first and says what is wrong with it on the next."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def refuse_other_kinds(backend: Mapping[str, Any], path: Path) -> None:
    """Raise unless llama.cpp's SentencePiece tokenizer can do what this one does."""

    def refuse(what: str) -> MedmindError:
        return MedmindError(
            f"the tokenizer in {path} is {what}", "medmind converts SentencePiece-BPE tokenizers with byte fallback"
        )

    model = backend["model"]
    pre = _parts(backend.get("pre_tokenizer"), "pretokenizers")
    if any(part["type"] == "ByteLevel" for part in pre):
        raise refuse("a byte-level BPE, as Llama 3's")
    if model["type"] != "BPE":
        raise refuse(f"of the kind {model['type']}")
    if not model.get("byte_fallback"):
        raise refuse("a BPE without byte fallback")
    for part in pre:
        if part["type"] != "Metaspace" or part.get("split", True):
            raise refuse(f"one that splits text first ({part['type']})")
    for part in _parts(backend.get("normalizer"), "normalizers"):
        plain = part["type"] == "Prepend" and part.get("prepend") == SPACE
        plain |= part["type"] == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == SPACE
        if not plain:
            raise refuse(f"one that rewrites text first ({part['type']})")


def _parts(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return list(step[key]) if step["type"] == "Sequence" else [step]
