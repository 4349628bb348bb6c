"""What stands between a person and a model: words before the answer, passages to answer from, a watch over the answer.

Knows only the shape that a conversation asks for; no rule and no library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from medmind_runtime.interruption import never
from medmind_runtime.turn import Passage, Turn


@dataclass(frozen=True)
class Before:
    """What is decided about a question before a model sees it.

    Attributes:
        opening: the answer begins with this, whatever the model says; empty for nothing.
        alone: the opening is the whole answer: no model is asked.
        passages: given to the model with the question, the most fitting first.
        rule: name of the rule that gave the opening, for programs; empty for none.
    """

    opening: str = ""
    alone: bool = False
    passages: Sequence[Passage] = ()
    rule: str = ""


class Watch(Protocol):
    """Looks at one answer while it streams."""

    @property
    def refusal(self) -> str:
        """Why nothing is shown of a document that has ended; empty when it is shown."""
        ...

    def feed(self, text: str) -> str:
        """Take the next words of the model; return what may be shown now, maybe with a note in it, maybe nothing."""
        ...

    def finish(self) -> str:
        """The answer has ended: what was held back."""
        ...


class Guard(Protocol):
    """One for a session. No method needs the model."""

    @property
    def instructions(self) -> str:
        """Stands behind the system prompt of every prompt and never leaves the context; empty for nothing."""
        ...

    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        """Decide about a question, and about what earlier turns left open; these are all so far, the oldest first.

        Args:
            question: as typed.
            earlier: turns.
            cancel: asked often; True means that nobody waits any more.

        Raises:
            Interrupted: cancelled; nothing is kept.
        """
        ...

    def place(self, question: str, passages: Sequence[Passage]) -> str:
        """The question as the model reads it, with those of its passages that fit the context."""
        ...

    def watch(self, question: str, passages: Sequence[Passage], *, document: bool = False) -> Watch:
        """Begin to watch an answer that was given these passages; to a `document`, as JSON, no words are added."""
        ...


class _Nothing:
    """A watch that lets everything through."""

    refusal = ""

    def feed(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


class Unguarded:
    """A guard that does nothing: for tests of other things, and for models that answer no medical questions."""

    instructions = ""

    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        """Nothing to say."""
        return Before()

    def place(self, question: str, passages: Sequence[Passage]) -> str:
        """As typed."""
        return question

    def watch(self, question: str, passages: Sequence[Passage], *, document: bool = False) -> Watch:
        """Everything passes."""
        return _Nothing()
