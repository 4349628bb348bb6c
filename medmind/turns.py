"""How a row's answers become token ids: the one rule that training, the converter's check and the benchmarks share.

Knows messages, and a tokenizer as two functions; loads none.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medmind.errors import MedmindError

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Language:
    """What of a model's tokenizer the rule needs.

    Attributes:
        render: (messages, add_generation_prompt) → text of the chat template, control tokens in it as text.
        tokenize: text → ids; control tokens are read, none is added.
        controls: the texts of all control tokens.
        eos: id of the token that ends an answer.
        bos: id of the token that begins a text, or None.
    """

    render: Callable[[Messages, bool], str]
    tokenize: Callable[[str], list[int]]
    controls: Sequence[str]
    eos: int
    bos: int | None = None


def framed(messages: Messages, system: str) -> list[Mapping[str, str]]:
    """The messages with the system text first, unless it is empty or they begin with one of their own."""
    own = bool(messages) and messages[0]["role"] == "system"
    return list(messages) if own or not system else [{"role": "system", "content": system}, *messages]


def turns(messages: Messages, system: str) -> Iterator[tuple[Messages, Messages]]:
    """Every assistant turn: what comes before it, and the same with the answer."""
    whole = framed(messages, system)
    for place, message in enumerate(whole):
        if message["role"] == "assistant":
            yield whole[:place], whole[: place + 1]


def spells_control(messages: Messages, controls: Sequence[str]) -> bool:
    """Whether a message has the text of a control token in it, which would become that token: such a row is dropped."""
    return any(word in message["content"] for message in messages for word in controls if word)


def tokens(language: Language, before: Messages, through: Messages) -> tuple[list[int], list[int]]:
    """Token ids of a prompt, and of its answer up to the EOS that ends it.

    What a template writes after EOS is no part of the answer; an EOS that it does not write is added. Where the
    tokenizer merges across the boundary, prompt and answer are tokenized apart: the prompt at inference has no answer.

    Raises:
        MedmindError: the template renders the prompt otherwise once the answer is known, or writes two BOS.
    """
    prompt_text, full_text = language.render(before, True), language.render(through, False)
    if not full_text.startswith(prompt_text):
        raise MedmindError(
            "the chat template renders a prompt otherwise once its answer is known",
            "take a model with another template",
        )
    prompt, full = language.tokenize(prompt_text), language.tokenize(full_text)
    if not prompt:
        raise MedmindError("the chat template renders nothing before an answer", "take a model with another template")
    merged = full[: len(prompt)] != prompt
    answer = language.tokenize(full_text[len(prompt_text) :]) if merged else full[len(prompt) :]
    starts = (prompt + answer).count(language.bos) if language.bos is not None and language.bos != language.eos else 0
    if starts > 1:
        raise MedmindError(
            f"the chat template writes {starts} tokens that begin a text, there must be one",
            "mend chat_template in the base's tokenizer_config.json",
        )
    if language.eos in answer:
        answer = answer[: answer.index(language.eos)]
    return prompt, [*answer, language.eos]


def choose(names: Sequence[str], limit: int) -> list[int]:
    """Places of at most `limit` rows (0: all), in order: those whose names have the lowest hashes.

    A row is chosen by its name alone, so that every stage measures the same rows.
    """
    if not limit or limit >= len(names):
        return list(range(len(names)))
    ranks = [(hashlib.sha256(name.encode()).digest(), place) for place, name in enumerate(names)]
    return sorted(place for _, place in sorted(ranks)[:limit])
