"""Proof that a written GGUF and the training tokenizer agree: token ids, chat template, stop tokens.

Knows the rows of heldout.jsonl; knows neither weights nor how the file was written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from medmind import console, turns
from medmind.errors import MedmindError
from medmind_convert.gguf_vocabulary import GgufVocabulary
from medmind_convert.tokenizer import Tokenizer

TEXTS = (
    "What are the first signs of glaucoma?",
    "  two leading spaces, a\ttab,\n\na blank line and trailing space ",
    "Ménière's disease, Sjögren's syndrome, β-blockers, 37.5 °C, ≥ 140/90 mmHg",
    "糖尿病の症状は何ですか。 当腰痛伴有发热时该怎么办？",
    "ما هي أعراض الربو؟ מהם התסמינים של אנמיה?",
    "🩺 👩🏽‍⚕️ e\u0301 ﬁ \u00a0\u200b\u202e x²",
    "- item 1\n- item 2\n\t- nested\n\n| a | b |\n|---|---|",
    "hypercholesterolaemia immunohistochemistry electroencephalographically",
    "",
    "1234567890 3.14159 1,000,000 50 % (n=12; p<0.05)",
)
"""Asked of a base without a run: words, spaces, accents, scripts without spaces, right to left, emoji, numbers."""


@dataclass(frozen=True)
class Agreement:
    """What was compared, all of it equal."""

    texts: int
    tokens: int
    renderings: int


class Expected:
    """The texts to compare, with the token ids and renderings transformers gives them.

    Args:
        tokenizer: the training tokenizer.
        rows: held-out rows, or none for a base without a run: `TEXTS` stand in.
        system_prompt: the run's; put first where a row has no system message of its own.
    """

    def __init__(self, tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], system_prompt: str) -> None:
        self.tokenizer = tokenizer
        self.renderings: list[tuple[list[Mapping[str, str]], bool, str]] = []
        texts: dict[str, None] = {}
        if tokenizer.chat_template is not None:
            for messages, generate in _conversations(rows, system_prompt):
                text = tokenizer.render(messages, add_generation_prompt=generate)
                self.renderings.append((messages, generate, text))
                texts[text] = None
        for text in TEXTS if not rows or tokenizer.chat_template is None else ():
            texts[tokenizer.bos_text + text] = None
        self.ids = {text: tokenizer.encode(text) for text in texts}

    def compare(self, path: Path, stops: Sequence[int]) -> Agreement:
        """Read the GGUF back and compare.

        Args:
            path: the GGUF.
            stops: token ids at which generation must end.

        Raises:
            MedmindError: the first difference.
        """
        with GgufVocabulary(path) as gguf:
            for text, ids in self.ids.items():
                found = gguf.tokenize(text)
                if found != ids:
                    _raise_ids(text, ids, found)
            render = _renderer(gguf)
            for messages, generate, text in self.renderings:
                found_text = render(messages, generate)
                if found_text != text:
                    _raise_rendering(text, found_text)
            for stop in stops:
                if not gguf.ends(stop):
                    raise MedmindError(f"llama.cpp would not stop at token {stop} {gguf.text(stop)!r}")
        return Agreement(len(self.ids), sum(map(len, self.ids.values())), len(self.renderings))


def _conversations(
    rows: Sequence[Mapping[str, Any]], system_prompt: str
) -> Iterator[tuple[list[Mapping[str, str]], bool]]:
    """Every prompt and every full answer, as training renders them."""
    if not rows:
        rows = [
            {"messages": [{"role": "user", "content": text or "?"}, {"role": "assistant", "content": text or "?"}]}
            for text in TEXTS
        ]
    for row in rows:
        for before, through in turns.turns(row["messages"], system_prompt):
            yield list(before), True
            yield list(through), False


def _renderer(gguf: GgufVocabulary) -> Any:
    """The template of the GGUF as a function, in the sandbox in which chat and benchmarks render it."""
    template = gguf.metadata("tokenizer.chat_template")
    if template is None:
        return lambda messages, generate: None
    console.require("jinja2", "convert")
    from medmind.template import Template

    compiled = Template(template, bos_token=gguf.text(gguf.bos), eos_token=gguf.text(gguf.eos))
    return lambda messages, generate: compiled.render(messages, add_generation_prompt=generate)


def _raise_ids(text: str, ids: list[int], found: list[int]) -> NoReturn:
    place = next((i for i, (a, b) in enumerate(zip(ids, found, strict=False)) if a != b), min(len(ids), len(found)))
    raise MedmindError(
        f"llama.cpp tokenizes {_shorten(text)} otherwise than transformers: from token {place} on "
        f"{found[place : place + 4]} instead of {ids[place : place + 4]}",
        "this tokenizer cannot be converted faithfully; please report it with the base model's name",
    )


def _raise_rendering(text: str, found: str | None) -> NoReturn:
    """Show the first line that differs."""
    lines, others = text.splitlines(keepends=True), (found or "").splitlines(keepends=True)
    pairs = enumerate(zip_longest(lines, others, fillvalue=""), 1)
    place, line, other = next(((n, a, b) for n, (a, b) in pairs if a != b), (1, text, str(found)))
    raise MedmindError(
        f"the chat template renders differently from the GGUF: line {place} is {_shorten(other)} "
        f"instead of {_shorten(line)}",
        "please report it with the base model's name",
    )


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
