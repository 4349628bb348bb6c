"""A conversation: its turns, what of them fits the context, and answers as a stream of whole characters.

Knows an engine by the protocol below. Knows no terminal, and keeps nothing outside memory.
"""

import codecs
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from medmind.errors import MedmindError
from medmind_runtime.decoder import never
from medmind_runtime.repetition import Circle
from medmind_runtime.sampling import Sampling
from medmind_runtime.timings import Timings

Finish = Literal["stop", "length", "context", "cancelled", "loop"]
"""Why an answer ended: its own end, `max_tokens`, the context full, somebody's wish, going round in a circle."""


class ChatEngine(Protocol):
    """What a conversation asks of an engine; see `medmind_runtime.engine.Engine`."""

    @property
    def context(self) -> int: ...  # noqa: D102

    @property
    def timings(self) -> Timings: ...  # noqa: D102

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...  # noqa: D102

    def detokenize(self, token: int) -> bytes: ...  # noqa: D102

    def is_end(self, token: int) -> bool: ...  # noqa: D102

    def generate(  # noqa: D102
        self, tokens: Sequence[int], *, sampling: Sampling, max_tokens: int, cancel: Callable[[], bool]
    ) -> Iterator[int]: ...


@dataclass(frozen=True)
class Turn:
    """One question and what was answered, maybe cut short."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """A question ready to be answered.

    Attributes:
        question: as typed.
        tokens: the whole prompt.
        dropped: earlier turns that had to leave the context now; they are not in `tokens`.
    """

    question: str
    tokens: Sequence[int]
    dropped: int


@dataclass(frozen=True)
class Reply:
    """The last answer, and what it cost.

    Attributes:
        text: the answer.
        finish: why it ended.
        timings: tokens and seconds.
        first_seconds: from asking to the first text; None if there was none.
    """

    text: str
    finish: Finish
    timings: Timings
    first_seconds: float | None


class Conversation:
    """Turns of one user with one engine.

    Attributes:
        system: the system prompt; always stays in the context. Empty for none.
        turns: everything said, also what has left the context.
        first: index of the first turn that is still in the context.
        last: the last answer.
    """

    def __init__(self, engine: ChatEngine, *, system: str, sampling: Sampling, max_tokens: int) -> None:
        if max_tokens < 1:
            raise MedmindError(f"max-tokens is {max_tokens} and must be 1 or more")
        self.engine = engine
        self.system = system
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.turns: list[Turn] = []
        self.first = 0
        self.last: Reply | None = None

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()
        self.first = 0
        self.last = None

    def undo(self) -> Turn | None:
        """Take back the last turn and return it; None when there is none."""
        if not self.turns:
            return None
        turn = self.turns.pop()
        self.first = min(self.first, len(self.turns))
        self.last = None
        return turn

    def fit(self, question: str) -> Prompt:
        """Make the prompt for a question; the oldest turns leave the context if it would not fit otherwise.

        A quarter of the context, or `max_tokens` if that is less, is kept free for the answer.

        Raises:
            MedmindError: the question does not fit even alone with the system prompt; nothing has changed then.
        """
        context = self.engine.context
        reserve = min(self.max_tokens, context // 4)
        for first in range(self.first, len(self.turns) + 1):
            tokens = self.engine.encode(self._messages(first, question))
            if len(tokens) + reserve <= context:
                dropped, self.first = first - self.first, first
                return Prompt(question, tokens, dropped)
        with_system = " with the system prompt" if self.system else ""
        raise MedmindError(
            f"the question does not fit: it takes {len(tokens)} tokens{with_system}, the context holds {context} "
            f"and {reserve} of them are kept for the answer",
            "shorten it, or start with a larger --context",
        )

    def answer(
        self, prompt: Prompt, *, cancel: Callable[[], bool] = never, sampling: Sampling | None = None
    ) -> Iterator[str]:
        """Stream the answer as text; a character is held back until all its bytes are there.

        When the stream ends, the turn is part of the conversation and `last` tells how it went. An answer that was
        cancelled before its first word leaves no turn.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        said: list[str] = []
        started = time.perf_counter()
        first_seconds: float | None = None
        finish: Finish | None = None
        cancelled = False

        def asked_to_stop() -> bool:
            nonlocal cancelled
            cancelled = cancelled or cancel()
            return cancelled

        tokens = self.engine.generate(
            prompt.tokens, sampling=sampling or self.sampling, max_tokens=self.max_tokens, cancel=asked_to_stop
        )
        try:
            circle = Circle()
            for token in tokens:
                if self.engine.is_end(token):
                    finish = "stop"
                    break
                if circle.add(token):
                    finish = "loop"
                    break
                if text := self._fresh(decoder.decode(self.engine.detokenize(token)), said):
                    first_seconds = first_seconds or time.perf_counter() - started
                    yield text
            if text := self._fresh(decoder.decode(b"", final=True), said):
                yield text
        finally:
            timings = replace(self.engine.timings)
            finish = finish or self._unfinished(timings, cancelled)
            self.last = Reply("".join(said), finish, timings, first_seconds)
            if said or finish != "cancelled":
                self.turns.append(Turn(prompt.question, "".join(said)))

    def _unfinished(self, timings: Timings, cancelled: bool) -> Finish:
        """Why an answer without an end token ended; a consumer that stops reading counts as cancelling."""
        if not cancelled and timings.generated_tokens >= self.max_tokens:
            return "length"
        if not cancelled and timings.prompt_tokens + timings.generated_tokens >= self.engine.context:
            return "context"
        return "cancelled"

    @staticmethod
    def _fresh(text: str, said: list[str]) -> str:
        """Record new text; white space before the first word is an artefact of tokenizing and is left out."""
        if not said:
            text = text.lstrip()
        if text:
            said.append(text)
        return text

    def _messages(self, first: int, question: str) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns[first:]:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
        messages.append({"role": "user", "content": question})
        return messages
