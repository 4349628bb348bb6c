"""From messages to token ids, so that only the template can write control tokens and never what somebody typed.

Knows rendering and tokenizing as two functions; holds no model.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_MARKS = tuple(chr(code) for code in range(0xE000, 0xF8FF))
"""Private-use characters; the first one that occurs nowhere in the conversation breaks typed control tokens apart."""


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other))
    return next((place for place in range(most) if one[place] != other[place]), most)


@dataclass(frozen=True)
class ControlToken:
    """A token with a meaning of its own, such as `[INST]` or `</s>`.

    Attributes:
        lstrip, rstrip: whether the tokenizer swallows white space before, after it.
    """

    id: int
    text: str
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Encoder:
    """Turns messages into the ids that the model reads.

    Attributes:
        render: messages → prompt text with the special tokens in it as text.
        tokenize: (text, special) → ids; with `special`, text of control tokens becomes those tokens.
        controls: every control token of the vocabulary.
    """

    render: Callable[[Sequence[Mapping[str, str]]], str]
    tokenize: Callable[[str, bool], list[int]]
    controls: Sequence[ControlToken]
    _pattern: re.Pattern[str] = field(init=False)
    _by_text: dict[str, ControlToken] = field(init=False)

    def __post_init__(self) -> None:
        by_text = {token.text: token for token in self.controls if token.text}
        texts = sorted(by_text, key=len, reverse=True)  # llama.cpp too looks for the longest first
        object.__setattr__(self, "_by_text", by_text)
        object.__setattr__(self, "_pattern", re.compile("|".join(map(re.escape, texts)) or r"(?!)"))

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of the rendered messages.

        The messages are rendered twice, the second time with marks that break apart every control token in their text
        (also one that text and template would make together). When both renderings hold the same control tokens, all
        are the template's, and the first is tokenized whole, exactly as in training. Otherwise the second is cut at its
        control tokens, the marks taken out, and the text between tokenized without special parsing.
        """
        text = self.render(messages)
        mark = next((mark for mark in _MARKS if mark not in text), _MARKS[0])
        marked = self.render([{**message, "content": self._break(message["content"], mark)} for message in messages])
        if self._pattern.findall(text) == self._pattern.findall(marked):
            return self.tokenize(text, True)
        ids: list[int] = []
        for piece in self._split(marked):
            ids += [piece.id] if isinstance(piece, ControlToken) else self.tokenize(piece.replace(mark, ""), False)
        return ids

    def _break(self, text: str, mark: str) -> str:
        """Put the mark between the characters of every control token, after the first character and before the last."""
        broken = self._pattern.sub(lambda found: mark.join(found.group()), text)
        return f"{broken[0]}{mark}{broken[1:-1]}{mark}{broken[-1]}" if len(broken) > 1 else broken

    def _split(self, text: str) -> Iterator[str | ControlToken]:
        """The text cut at its control tokens, which swallow white space as llama.cpp lets them."""
        at, swallow = 0, False
        for found in self._pattern.finditer(text):
            token = self._by_text[found.group()]
            if piece := self._strip(text[at : found.start()], swallow, token.lstrip):
                yield piece
            yield token
            at, swallow = found.end(), token.rstrip
        if piece := self._strip(text[at:], swallow, False):
            yield piece

    @staticmethod
    def _strip(text: str, left: bool, right: bool) -> str:
        text = text.lstrip() if left else text
        return text.rstrip() if right else text
