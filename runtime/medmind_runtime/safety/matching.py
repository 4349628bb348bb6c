"""Which rules match a text: outside denials, history, lessons and general questions, as far as their kinds mind them.

Knows the kinds of rules.toml, and contexts; no word and no topic.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from medmind_runtime.safety.context import Context
from medmind_runtime.safety.patterns import Bank, Part, Pattern

RuleKind = Literal["sure", "asked", "when", "even", "about", "unless"]
RULE_KINDS: tuple[RuleKind, ...] = get_args(RuleKind)
"""In the order in which they are tried."""
RAISING: tuple[RuleKind, ...] = ("sure", "asked", "when", "even")
"""Those that raise an alarm."""
SURE: tuple[RuleKind, ...] = ("sure", "asked")
"""Those that no classifier takes back."""


@dataclass(frozen=True)
class Rule:
    """One pattern of a topic.

    Attributes:
        topic: its name.
        pattern: what raises the alarm, or takes it back.
        kind: the key of rules.toml it stands under.
        firm: history and suppositions take nothing back, only a plain denial does.
        first: its topic comes before those that no such rule raises.
    """

    topic: str
    pattern: Pattern
    kind: RuleKind
    firm: bool
    first: bool

    @property
    def needs(self) -> list[frozenset[str]]:
        """Of its pattern."""
        return self.pattern.needs


@dataclass(frozen=True)
class Matched:
    """The rules that match a text and are not taken back, one a topic.

    Attributes:
        raised: those that raise their topic.
        about: those that only say what it may be about.
        first: topics that come before the others.
    """

    raised: Mapping[str, Rule]
    about: Mapping[str, Rule]
    first: Set[str]


def matched(rules: Bank[Rule], sentences: Sequence[str], contexts: Sequence[Context]) -> Matched:
    """The first rule of each topic that matches, as they are tried."""
    found: dict[str, Rule] = {}
    first: set[str] = set()
    taken_back: set[str] = set()
    for rule in rules.candidates({sign for sentence in sentences for sign in sentence}):
        known = taken_back if rule.kind == "unless" else first if rule.first else found
        if rule.topic in known or not _matches(rule, sentences, contexts):
            continue
        if rule.kind == "unless":
            taken_back.add(rule.topic)
        else:
            found.setdefault(rule.topic, rule)
        if rule.first:
            first.add(rule.topic)
    left = {topic: rule for topic, rule in found.items() if topic not in taken_back}
    return Matched(
        {topic: rule for topic, rule in left.items() if rule.kind != "about"},
        {topic: rule for topic, rule in left.items() if rule.kind == "about"},
        first,
    )


def _matches(rule: Rule, sentences: Sequence[str], contexts: Sequence[Context]) -> bool:
    """Whether a rule matches outside denials, history, lessons and general questions, as far as its kind minds them."""
    parts = rule.pattern.parts
    if rule.pattern.anywhere:
        return all(any(_live(part, rule, sentences, contexts)) for part in parts)
    return any(
        all(any(_live(part, rule, (sentence,), (context,))) for part in parts)
        for sentence, context in zip(sentences, contexts, strict=True)
    )


def _live(part: Part, rule: Rule, sentences: Sequence[str], contexts: Sequence[Context]) -> Iterator[bool]:
    for sentence, context in zip(sentences, contexts, strict=True):
        silent = _silent(rule, context, len(sentence))
        for first, _ in part.places(sentence):
            if first not in silent:
                yield True


def _silent(rule: Rule, context: Context, length: int) -> Set[int]:
    """The places of a sentence of that length where a rule raises nothing.

    What is `sure` or `even` needs a lesson or a film to be what is spoken of. For the rest any word of one in the text
    is enough: the classifier can still hear what a rule does not.
    """
    quiet = context.denied if rule.firm else context.quiet
    match rule.kind:
        case "unless":
            return frozenset()
        case "about":
            return quiet
        case "even":
            all_of_it = False
        case "when":
            all_of_it = context.general or context.beside
        case "sure":
            all_of_it = context.general
        case "asked":
            all_of_it = context.mishap
        case _:
            assert_never(rule.kind)
    return frozenset(range(length)) if all_of_it else quiet | context.apart
