"""What goes to a model and what comes back: a prompt or that none fits, a reply, how full the context is.

Knows not how they are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medmind.errors import MedmindError
from medmind_runtime.config import NOTICE
from medmind_runtime.engine.timings import Timings
from medmind_runtime.guard import Before
from medmind_runtime.turn import Passage

Finish = Literal["stop", "length", "context", "cancelled", "loop"]
"""Why an answer ended: its own end, `max_tokens`, the context full, somebody's wish, going round in a circle."""


@dataclass(frozen=True)
class Prompt:
    """A question ready to be answered.

    Attributes:
        question: as typed.
        tokens: the whole prompt; empty when no model is asked.
        dropped: earlier turns that had to leave the context now; they are not in `tokens`.
        before: what the guard decided.
        passages: those of its passages that are in `tokens`; the others did not fit.
        document: whether the answer is one that must be JSON; never where the guard's words are the answer.
        remembered: False where the guard's words are the answer and the turn is longer than the context.
        known: how many of `tokens` were known before the question; 0 where nobody asked (`Conversation.with_known`).
    """

    question: str
    tokens: Sequence[int]
    dropped: int
    before: Before = field(default_factory=Before)
    passages: Sequence[Passage] = ()
    document: bool = False
    remembered: bool = True
    known: int = 0

    def lookup_text(self) -> str:
        """What the passages' sources say around them, the likeliest last."""
        return " ".join(passage.neighbours for passage in reversed(self.passages) if passage.neighbours)

    def beside(self) -> dict[str, Any]:
        """What medmind says beside the answer, for programs."""
        return {
            "notice": NOTICE,
            "rule": self.before.rule or None,
            "first_aid": self.before.opening if self.before.rule else "",
            "sources": [passage.cited() for passage in self.passages],
        }


class DoesNotFit(MedmindError):
    """A question that is too long even alone, a conversation of which nothing may be dropped, or a system prompt.

    Attributes:
        tokens: of the prompt, or at least so many; context: what the engine holds; reserve: kept free for the answer.
        opening: what the guard says first all the same: what to do now does not depend on the length.
    """

    def __init__(
        self,
        what: str,
        tokens: int,
        *,
        counted: bool = True,
        system: bool,
        context: int,
        reserve: int,
        opening: str = "",
    ) -> None:
        takes = "takes" if counted else "takes at least"
        with_system = " with the system prompt" if system and what != "system prompt" else ""
        super().__init__(
            f"the {what} does not fit: it {takes} {tokens} tokens{with_system}, the context holds {context} "
            f"and {reserve} of them are kept for the answer",
            "shorten it, or start with a larger --context",
        )
        self.tokens, self.context, self.reserve, self.opening = tokens, context, reserve, opening


@dataclass(frozen=True)
class Reply:
    """The last answer, and what it cost.

    Attributes:
        text: the answer, a guard's opening included.
        finish: why it ended.
        timings: tokens and seconds.
        first_seconds: from asking to the first text of the model; None if there was none.
        refusal: why the guard holds a document back, which is empty then; empty for none.
    """

    text: str
    finish: Finish
    timings: Timings
    first_seconds: float | None
    refusal: str = ""


@dataclass(frozen=True)
class Use:
    """How the context is filled, in tokens.

    Attributes:
        context: all that it holds.
        system: system prompt and what the template puts around an empty question.
        turns: questions and answers that are still in it.
        free: what is left; reserve: how many of those are kept for the answer.
    """

    context: int
    system: int
    turns: int
    free: int
    reserve: int
