"""An engine for tests of the layers above: bytes are its tokens and its answers are given. Needs no model."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.engine.timings import Timings
from medmind_runtime.interruption import never

END = 256


class FakeEngine:
    """Behaves as `Engine` does towards a conversation.

    Args:
        answers: bytes or text said in turn, over and over; each ends with the end token.
        context: tokens, that is bytes.
        delay: seconds before each token.

    Attributes:
        prompts: every prompt it was given, as text.
        samplings: the settings it was given.
        lookup_texts: what answers might go on like.
        evaluated: what it was to evaluate ahead, as text.
    """

    def __init__(self, answers: Sequence[str | bytes], *, context: int = 4096, delay: float = 0.0) -> None:
        self._delay = delay
        self.context = context
        self.timings = Timings()
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []
        self.lookup_texts: list[str] = []
        self.evaluated: list[str] = []
        self._answers = [answer.encode() if isinstance(answer, str) else answer for answer in answers]

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """`<role>content` of every message, as bytes."""
        return list("".join(f"<{message['role']}>{message['content']}" for message in messages).encode())

    def least_tokens(self, text: str) -> int:
        """As if a token could be four bytes."""
        return len(text.encode()) // 4

    def detokenize(self, token: int) -> bytes:
        """The byte itself; nothing for the end token."""
        return b"" if token == END else bytes([token])

    def is_end(self, token: int) -> bool:
        """Whether it is the end token."""
        return token == END

    def evaluate(self, tokens: Sequence[int], *, cancel: Callable[[], bool] = never) -> None:
        """Notes it."""
        self.evaluated.append(bytes(tokens).decode())

    def generate(
        self,
        tokens: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        cancel: Callable[[], bool] = never,
        known: int = 0,
        lookup_text: str = "",
    ) -> Iterator[int]:
        """The next answer, byte by byte."""
        answer = self._answers[len(self.prompts) % len(self._answers)]
        self.prompts.append(bytes(tokens).decode())
        self.samplings.append(sampling)
        self.lookup_texts.append(lookup_text)
        self.timings = Timings(prompt_tokens=len(tokens))
        return self._said([*answer, END][: min(max_tokens, self.context - len(tokens))], cancel, self.timings)

    def _said(self, answer: Sequence[int], cancel: Callable[[], bool], timings: Timings) -> Iterator[int]:
        for token in answer:
            if cancel():
                return
            time.sleep(self._delay)
            timings.generated_tokens += 1
            yield token
