"""Where one rule matches a text: outside denials, history, lessons and general questions, as its kind minds them.

Knows the kinds of rules.toml, and contexts; no word and no topic.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from medmind_runtime.safety.context import Context
from medmind_runtime.safety.patterns import Part, Pattern

RuleKind = Literal["sure", "asked", "first", "when", "even", "about", "unless"]
RULE_KINDS: tuple[RuleKind, ...] = get_args(RuleKind)
"""In the order in which they are tried."""
SURE: tuple[RuleKind, ...] = ("sure", "asked")
"""Those that no classifier takes back."""


@dataclass(frozen=True)
class Rule:
    """One pattern of a topic.

    Attributes:
        topic: its place among the topics.
        pattern: what raises the alarm, or takes it back.
        kind: the key of rules.toml it stands under.
        firm: history and suppositions take nothing back, only a plain denial does.
    """

    topic: int
    pattern: Pattern
    kind: RuleKind
    firm: bool

    @property
    def needs(self) -> list[frozenset[str]]:
        """Of its pattern."""
        return self.pattern.needs


def matches(rule: Rule, sentences: Sequence[str], contexts: Sequence[Context]) -> bool:
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

    What is sure needs a lesson or a film to be what is spoken of. For the rest any word of one in the text is enough:
    the classifier can still hear what a rule does not.
    """
    quiet = context.denied if rule.firm else context.quiet
    match rule.kind:
        case "unless":
            return frozenset()
        case "even" | "about":
            return quiet
        case "first" | "when":
            all_of_it = context.general or context.beside
        case "sure":
            all_of_it = context.general
        case "asked":
            all_of_it = context.mishap
        case _:
            assert_never(rule.kind)
    return frozenset(range(length)) if all_of_it else quiet | context.apart
