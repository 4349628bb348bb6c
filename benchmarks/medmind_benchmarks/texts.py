"""The token ids that perplexity and divergence are measured on, made once and read by every cell.

Knows the two texts, held-out answers and raw text in chunks, and their file; loads a vocabulary and no weights.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmind import llama
from medmind.artifacts import read_json, write_text
from medmind.errors import MedmindError
from medmind.template import FALLBACKS, Template
from medmind.turns import Language
from medmind_benchmarks import examples
from medmind_benchmarks.examples import Example
from medmind_benchmarks.model_file import ModelFile
from medmind_benchmarks.typed_json import decode
from medmind_runtime.engine.vocabulary import Vocabulary


@dataclass(frozen=True)
class Text:
    """Token ids in groups that are independent of one another: the rows of a held-out set, the chunks of a raw text.

    Attributes:
        context: tokens a model must hold at once.
        groups: examples of each group; a row without any is empty.
        cut, dropped: answers cut at the context, turns left out.
    """

    context: int
    groups: tuple[tuple[Example, ...], ...]
    cut: int
    dropped: int

    @property
    def tokens(self) -> tuple[int, ...]:
        """Scored tokens of each group."""
        return tuple(sum(len(one.tokens) - one.start for one in group) for group in self.groups)

    @property
    def work(self) -> int:
        """Tokens that a model evaluates."""
        return sum(len(one.tokens) for group in self.groups for one in group)

    @property
    def digest(self) -> str:
        """Over every token id and which of them are scored."""
        content = json.dumps([[one.tokens, one.start] for group in self.groups for one in group])
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


class Speaker:
    """A model's tokenizer and chat template.

    Attributes:
        language: for `medmind.turns`.
        add_bos: whether a text begins with BOS.
        size: tokens of the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary, template: Template, *, add_bos: bool) -> None:
        self._vocabulary = vocabulary
        self.add_bos = add_bos
        self.bos = vocabulary.bos
        self.size = len(vocabulary)
        self.language = Language(
            render=lambda messages, generate: template.render(messages, add_generation_prompt=generate),
            tokenize=lambda text: vocabulary.tokenize(text, special=True),
            controls=[token.text for token in vocabulary.controls],
            eos=vocabulary.eos,
            bos=vocabulary.bos if vocabulary.bos >= 0 else None,
        )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text, which spells no control token, without BOS."""
        return self._vocabulary.tokenize(text, special=False)

    def spell(self, tokens: Sequence[int]) -> str:
        """The plain text that tokens stand for, without the space that a tokenizer puts before its first word."""
        spelled = b"".join(self._vocabulary.piece(token) for token in tokens).decode("utf-8", "replace")
        return spelled.removeprefix(" ")


@contextmanager
def speaker(model: ModelFile) -> Iterator[Speaker]:
    """The tokenizer of a file, without its weights.

    Raises:
        MedmindError: llama.cpp does not take the file.
    """
    lib = llama.load()
    llama.log.mark()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    name = str(model.path).encode("utf-8") if os.name == "nt" else os.fsencode(model.path)
    handle = lib.llama_model_load_from_file(name, params)
    if not handle:
        reason = llama.log.first_error() or "llama.cpp gives no reason"
        raise MedmindError(f"{model.path} cannot be loaded: {reason}", "convert it again, or use another model file")
    try:
        vocabulary = Vocabulary(lib, handle)
        template = model.template
        if not template and (fallback := vocabulary.fallback()):
            template = FALLBACKS[fallback][1]
        yield Speaker(
            vocabulary,
            Template(template, bos_token=vocabulary.text(vocabulary.bos), eos_token=vocabulary.text(vocabulary.eos)),
            add_bos=bool(lib.llama_vocab_get_add_bos(lib.llama_model_get_vocab(handle))),
        )
    finally:
        lib.llama_model_free(handle)


def answers(
    spoken: Speaker, rows: Sequence[Mapping[str, Any]], chosen: Sequence[int], *, context: int, system_prompt: str
) -> Text:
    """The answers of the chosen rows, one group a row.

    Raises:
        MedmindError: no answer fits the context.
    """
    groups, cut, dropped = [], 0, 0
    for index in chosen:
        found, lost = examples.build(
            spoken.language, rows[index]["messages"], context=context, system_prompt=system_prompt
        )
        groups.append(tuple(found))
        cut += sum(one.cut for one in found)
        dropped += lost
    text = Text(context, tuple(groups), cut, dropped)
    if sum(text.tokens) == 0:
        raise MedmindError(f"no answer of the {len(chosen)} rows fits a context of {context} tokens")
    return text


def raw(spoken: Speaker, text: str, *, chunk: int, most: int, where: str) -> tuple[Text, int]:
    """A text in chunks as llama-perplexity cuts it: BOS in place of each chunk's first token, its second half scored.

    Source: `perplexity` of llama.cpp's tools/perplexity/perplexity.cpp; the text loses one newline at its end, as its
    option -f has it, and what is left over after the last whole chunk is not scored.

    Args:
        spoken: the tokenizer.
        text: plain text.
        chunk: tokens of a chunk (n_ctx).
        most: chunks to take at most; 0 takes all.
        where: the text's name, for the error.

    Returns:
        One group a chunk, and the tokens of the whole text.

    Raises:
        MedmindError: the text is shorter than two chunks.
    """
    tokens = spoken.tokenize(text.removesuffix("\n"))
    if spoken.add_bos:
        tokens.insert(0, spoken.bos)
    if len(tokens) < 2 * chunk:
        raise MedmindError(
            f"{where} has {len(tokens)} tokens, perplexity on raw text needs two chunks of {chunk}",
            "give a longer text with --text FILE, or a smaller --chunk",
        )
    starts = range(0, len(tokens) - chunk + 1, chunk)
    groups = []
    for start in starts[: most or None]:
        ids = tokens[start : start + chunk]
        if spoken.add_bos:
            ids[0] = spoken.bos
        groups.append((Example(tuple(ids), chunk // 2 + 1, cut=False),))
    return Text(chunk, tuple(groups), 0, 0), len(tokens)


def joined(rows: Sequence[Mapping[str, Any]]) -> str:
    """Held-out rows as one raw text: their messages, a blank line between."""
    return "\n\n".join(message["content"] for row in rows for message in row["messages"])


def read_raw(path: Path) -> str:
    """The text of a file.

    Raises:
        MedmindError: no text in UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise MedmindError(f"{path} is no text in UTF-8: byte {error.start}", "give a plain text file") from error


def write(text: Text, path: Path) -> None:
    """Write a text's token ids, for the cells."""
    write_text(path, json.dumps(asdict(text)))


def read(path: Path) -> Text:
    """The text that `write` wrote."""
    return decode(Text, read_json(path))
