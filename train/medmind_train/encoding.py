"""From conversations to token ids: template, prompt and answer, cut and dropped rows. Knows tokenizers; no tensors.

Every assistant turn is one example. The loss mask is a position (`Example.answer`), never a token id, so a pad token
that equals EOS cannot hide the end of an answer from the loss.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medmind import turns
from medmind.errors import MedmindError
from medmind_train.examples import Example, Examples


class Conversation(Protocol):
    """What encoding needs of a row."""

    @property
    def id(self) -> str:
        """Its name in counts and error messages."""

    @property
    def messages(self) -> Sequence[Mapping[str, str]]:
        """Its turns, each with `role` and `content`."""


@dataclass(frozen=True)
class Encoded:
    """All examples of some rows, and what became of the rest.

    Attributes:
        cut: answers longer than the context; they carry no EOS.
        too_long: ids of rows with a prompt that leaves no room for an answer.
        control: ids of rows with a control token spelled out in their text, which would become that token.
    """

    examples: Examples
    cut: int
    too_long: tuple[str, ...]
    control: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """The numbers for manifest and report."""
        return {
            "examples": len(self.examples),
            "tokens": self.examples.tokens,
            "supervised_tokens": self.examples.supervised,
            "answers_cut": self.cut,
            "prompts_too_long": len(self.too_long),
            "control_tokens_in_text": len(self.control),
        }


def load_tokenizer(path: Path, name: str) -> Any:
    """The tokenizer of a base directory; it must bring a chat template and an end token.

    Raises:
        MedmindError: unreadable, no chat template, no EOS.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MedmindError(f"the tokenizer of {name} cannot be read: {error}", "download or copy it again") from error
    if not tokenizer.chat_template:
        raise MedmindError(
            f"the tokenizer of {name} has no chat template, so there is no telling how to put a question to it",
            "take an instruction-tuned model, or add chat_template to its tokenizer_config.json",
        )
    if tokenizer.eos_token_id is None:
        raise MedmindError(f"the tokenizer of {name} has no EOS token", "add eos_token to its tokenizer_config.json")
    return tokenizer


def encode(tokenizer: Any, rows: Iterable[Conversation], *, context: int, system: str = "") -> Encoded:
    """Turn every assistant turn of `rows` into an example of at most `context` tokens.

    Raises:
        MedmindError: the template refuses a row, writes more than one BOS, or does not render a prompt as the
            beginning of its conversation.
    """
    language = speak(tokenizer)
    examples: list[Example] = []
    cut = 0
    too_long: list[str] = []
    control: list[str] = []
    for row in rows:
        if turns.spells_control(row.messages, language.controls):
            control.append(row.id)
            continue
        for before, through in turns.turns(row.messages, system):
            try:
                prompt, answer = turns.tokens(language, before, through)
            except MedmindError as error:
                raise MedmindError(f"row {row.id}: {error.message}", error.hint) from error
            if len(prompt) >= context:
                too_long.append(row.id)
                continue
            ids = prompt + answer
            complete = len(ids) <= context
            cut += not complete
            examples.append(Example(row.id, tuple(ids[:context]), len(prompt), complete))
    return Encoded(Examples.of(examples), cut, tuple(too_long), tuple(control))


def speak(tokenizer: Any) -> turns.Language:
    """A transformers tokenizer as `medmind.turns` wants it."""
    from jinja2 import TemplateError

    def render(messages: turns.Messages, add_generation_prompt: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except (TemplateError, TypeError, KeyError, IndexError) as error:
            raise MedmindError(f"the chat template refuses it: {error}", "mend or remove that row") from error

    return turns.Language(
        render=render,
        tokenize=lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]),
        controls=[str(token) for token in tokenizer.added_tokens_decoder.values() if token.special],
        eos=tokenizer.eos_token_id,
        bos=tokenizer.bos_token_id,
    )
