"""Messages as a model reads them: its own chat template, or a built-in one, and the token ids. Evaluates nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medmind.errors import MedmindError
from medmind_runtime.engine.vocabulary import Vocabulary
from medmind_runtime.prompt import Encoder

if TYPE_CHECKING:
    from medmind.template import Template

_PROBE = "question"


class ChatFormat:
    """The chat format of one GGUF.

    Args:
        path: the file, for errors.
        metadata: its scalar metadata as text.
        vocabulary: its tokens.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str], vocabulary: Vocabulary) -> None:
        self._path = path
        self._own = metadata.get("tokenizer.chat_template", "")
        self._vocabulary = vocabulary
        self._template: Template | None = None
        self._encoders: dict[bool, Encoder] = {}

    @property
    def fallback(self) -> str:
        """The built-in template that stands in for a missing one; empty when not needed, or when none fits."""
        return "" if self._own else self._vocabulary.fallback()

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """See `engine.Engine.render`."""
        if self._template is None:
            from medmind.template import Template

            words = self._vocabulary
            template = Template(self._source(), bos_token=words.text(words.bos), eos_token=words.text(words.eos))
            probe = [{"role": "user", "content": _PROBE}]
            if _PROBE not in template.render(probe, add_generation_prompt=True):
                raise MedmindError(
                    f"the chat template of {self._path} leaves out what is asked",
                    "use another model file, or convert it again from a base whose template holds the messages",
                )
            self._template = template
        return self._template.render(messages, add_generation_prompt=add_generation_prompt)

    def _source(self) -> str:
        from medmind.template import FALLBACKS

        if not self._own and not self.fallback:
            raise MedmindError(
                f"{self._path} carries no chat template", "convert it again from a base whose tokenizer has one"
            )
        return self._own or FALLBACKS[self.fallback][1]

    def encode(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> list[int]:
        """See `engine.Engine.encode`."""
        if add_generation_prompt not in self._encoders:
            self._encoders[add_generation_prompt] = Encoder(
                render=lambda rows: self.render(rows, add_generation_prompt=add_generation_prompt),
                tokenize=lambda text, special: self._vocabulary.tokenize(text, special=special),
                controls=self._vocabulary.controls,
            )
        return self._encoders[add_generation_prompt].encode(messages)
