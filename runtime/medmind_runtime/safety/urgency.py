"""In what order topics are said: by their urgency, and those whose words are beyond doubt before the others.

Knows topics by their names, and no text.
"""

from collections.abc import Collection, Mapping, Sequence


class Urgency:
    """The order of rules.toml.

    Args:
        topics: the most urgent first.
        life: those of life or death, which no other passes.
        passes: by topic, those of life or death that it does pass: its words say what to do there, too.

    Raises:
        ValueError: a name is none of a topic.
    """

    def __init__(self, topics: Sequence[str], life: Collection[str], passes: Mapping[str, Collection[str]]) -> None:
        self._places = {name: place for place, name in enumerate(topics)}
        self._life, self._passes = frozenset(life), passes
        if unknown := self._life.union(*passes.values()) - self._places.keys():
            raise ValueError(f"there is no topic {', '.join(sorted(unknown))}")

    def order(self, topics: Collection[str], first: Collection[str]) -> list[str]:
        """These topics, of which some come first."""
        by_urgency = sorted(topics, key=self._places.__getitem__)
        order = [topic for topic in by_urgency if topic not in first]
        at = 0
        for topic in by_urgency:
            if topic in first:
                at = max([at, *(place + 1 for place, one in enumerate(order) if self._is_held_by(topic, one))])
                order.insert(at, topic)
                at += 1
        return order

    def _is_held_by(self, topic: str, one: str) -> bool:
        more_urgent = self._places[one] < self._places[topic]
        return one in self._life and more_urgent and one not in self._passes.get(topic, ())
