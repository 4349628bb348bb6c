"""What rules.toml holds: the topics, what each says and how urgent it is, and the rules compiled.

Knows the file's keys; no text and no context.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from medmind_runtime.safety.matching import RAISING, RULE_KINDS, Rule
from medmind_runtime.safety.patterns import Bank, Compiler
from medmind_runtime.safety.urgency import Urgency


class Rulebook:
    """The rules, compiled.

    Args:
        rules: the contents of rules.toml.
        compiler: of the lexicon's lists.

    Attributes:
        says: by topic, what the answer has to begin with.
        urgency: the order of the topics.
        rules: of all of them.

    Raises:
        ValueError: a rule names a list that there is not, or is of a kind that there is not.
    """

    def __init__(self, rules: Mapping[str, Any], compiler: Compiler) -> None:
        topics: Mapping[str, Mapping[str, Any]] = rules["topic"]
        phrases: dict[str, str] = {}
        for name, phrase in rules["phrases"].items():
            phrases[name] = phrase.strip().format(**phrases)
        self.says = {topic: entry["say"].strip().format(**phrases) for topic, entry in topics.items()}
        passes = {topic: entry.get("passes", ()) for topic, entry in topics.items()}
        self.urgency = Urgency(list(topics), rules["life"], passes)
        self.rules = Bank([rule for topic, entry in topics.items() for rule in _rules(topic, entry, compiler)])


def _rules(topic: str, entry: Mapping[str, Any], compiler: Compiler) -> Iterator[Rule]:
    """Those of a topic, in the order in which they are tried: what comes first before the others of its kind."""
    first: Mapping[str, Any] = entry.get("first", {})
    unknown = entry.keys() - {"say", "firm", "passes", "first", *RULE_KINDS}
    unknown |= {f"first.{kind}" for kind in first.keys() - set(RAISING)}
    if unknown:
        raise ValueError(f"{topic} has {', '.join(sorted(unknown))}: there is no such kind of rule")
    for kind in RULE_KINDS:
        for marked, of_kind in ((True, first), (False, entry)):
            for source in of_kind.get(kind, ()):
                yield Rule(topic, compiler.pattern(source), kind, firm=entry.get("firm", False), first=marked)
