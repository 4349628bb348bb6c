"""What a library finds for the items' questions, and whether it is of their own topic. No model has a part in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from medmind_benchmarks.grounding.items import Item
from medmind_benchmarks.grounding.results import Recalled
from medmind_benchmarks.proportions import wilson
from medmind_runtime.library.index import PASSAGES, Library
from medmind_runtime.library.ranking import Topic


@dataclass(frozen=True)
class Hit:
    """What a library has for one question.

    Attributes:
        found: passages found, at most as many as chat takes.
        place: of the first one of the question's own topic, from 1; None where none is, or the row carries no topic.
        held: whether the library holds an answer on that topic at all.
    """

    found: int
    place: int | None
    held: bool


def look_up(library: Library, found: Sequence[Item]) -> list[Hit]:
    """One hit an item."""
    topics = {_same(topic) for topic in library.topics()}
    hits = []
    for item in found:
        passages = library.search(item.question)
        mine = _same(item.topic) if item.topic else None
        places = [place for place, (topic, _) in enumerate(passages, 1) if _same(topic) == mine]
        hits.append(Hit(len(passages), places[0] if places else None, mine in topics))
    return hits


def recall(hits: Sequence[Hit]) -> tuple[Recalled, ...]:
    """Recall of the topics held, in the best passage and in all that chat takes; empty when none is held."""
    held = [hit for hit in hits if hit.held]
    recalled = []
    for passages in (1, PASSAGES) if held else ():
        right = sum(hit.place is not None and hit.place <= passages for hit in held)
        recalled.append(Recalled(passages, len(held), right / len(held), *wilson(right, len(held))))
    return tuple(recalled)


def _same(topic: Topic) -> tuple[str, str]:
    """A topic as it is compared: sources differ in case and in white space."""
    return " ".join(topic.focus.split()).casefold(), topic.kind.strip().casefold()
