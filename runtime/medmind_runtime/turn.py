"""The turns of a conversation, with the passages that they were answered from. Knows not how they are made."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Passage:
    """A piece of a source that a model is given to answer from.

    Attributes:
        text: the passage.
        source: name of what it was taken from.
        url: where that can be read; empty when unknown.
        neighbours: what the source says before and behind it. No model is given that, and nobody is shown it; but an
            answer may go on in its words, and is sooner there where they are guessed.
    """

    text: str
    source: str
    url: str = ""
    neighbours: str = field(default="", compare=False, repr=False)

    def cited(self) -> dict[str, str]:
        """What of it is for files and programs."""
        return {"text": self.text, "source": self.source, "url": self.url}


@dataclass(frozen=True)
class Turn:
    """One question and what was answered, maybe cut short.

    Attributes:
        question: as typed.
        answer: as shown, a guard's opening included.
        passages: what the model was given with the question; [1] is the first.
        judged: whether the guard was asked about the question before it was answered; not where a turn is from
            elsewhere: a client's request, a file.
    """

    question: str
    answer: str
    passages: Sequence[Passage] = ()
    judged: bool = field(default=False, compare=False)


def messages(system: str, turns: Sequence[Turn], question: str) -> list[dict[str, str]]:
    """Turns and the next question as chat templates take them; the system prompt first, where there is one."""
    found = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        found.append({"role": "user", "content": turn.question})
        found.append({"role": "assistant", "content": turn.answer})
    return [*found, {"role": "user", "content": question}]
