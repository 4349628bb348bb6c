"""Alternatives that begin alike, made one that parts later.

llama.cpp follows all alternatives at a time. Where two that begin alike both hold their choice again, what it follows
doubles with every level: there a token took 285 ms at the eighth level, and of three alternatives 5.9 s (12,288 tokens,
one Xeon core). Knows rules; no schema.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix

from medmind_runtime.schema.gbnf import Literal, Part, Ranges, Ref, Rules, Sequenced, referred, sequence
from medmind_runtime.schema.rule_beginnings import Beginnings, NamedRules, first_rules, joined, upwards

_MOST_OPENED = 5_000
_DEEPEST = 50
_MOST_FOLLOWED = 64
"""Alternatives at a time: at 64 a token took 54 to 68 ms, as above."""

Alike = list[list[Sequenced]]


class _TooMuch(Exception):
    """More rules would have to be opened than are worth it."""


def share(rules: Rules, choices: Sequence[Ref], root: Ref) -> str:
    """Let the alternatives of these rules share what they begin with; the texts that follow the rules stay the same.

    Returns:
        The name of one of the choices that would have llama.cpp follow too much at a time; empty for none, also where
        a rule begins with itself: such rules are left as they are.
    """
    if upwards(first_rules(rules.named))[0]:
        return ""
    begun = Beginnings.of(rules.named)
    alike: dict[str, tuple[str, Alike]] = {}
    for choice in choices:
        sharing = _Sharing(rules, begun)
        try:
            made, groups = sharing.shared(rules.choices(choice))
        except _TooMuch:
            sharing = _Sharing(rules, begun)
            made = list(rules.choices(choice))
            groups = [group for group in sharing.groups(made) if len(group) > 1]
        rules.define(choice, made)
        alike.update({name: (choice.name, found) for name, found in {**sharing.alike, choice.name: groups}.items()})
    rules.keep(root)
    return _growing(rules.named, alike)


@dataclass
class _Sharing:
    """Makes the rules of one choice.

    Attributes:
        rules: to which they are added.
        begun: what each rule begins with.
        alike: by name of a rule that was made, its alternatives that begin alike nevertheless.
    """

    rules: Rules
    begun: Beginnings
    alike: dict[str, Alike] = field(default_factory=dict)
    _opened: int = 0

    def shared(self, choices: Sequence[Sequenced], depth: int = 0) -> tuple[list[Sequenced], Alike]:
        """Choices that share their beginnings, and the groups of those that begin alike nevertheless."""
        if depth > _DEEPEST:
            raise _TooMuch
        made: list[Sequenced] = []
        alike: Alike = []
        for group in self.groups(dict.fromkeys(choices)):
            together, left = self._together(group, depth) if len(group) > 1 else (group, [])
            made += together
            alike += left
        return made, alike

    def groups(self, choices: Iterable[Sequenced]) -> list[list[Sequenced]]:
        """Choices, together those that begin with a character alike."""
        groups: list[tuple[Ranges, list[Sequenced]]] = []
        for choice in choices:
            ranges, together = joined(self.begun.ranges(choice)), [choice]
            for group in [group for group in groups if _meet(group[0], ranges)]:
                groups.remove(group)
                ranges, together = joined((*ranges, *group[0])), [*group[1], *together]
            groups.append((ranges, together))
        return [group for _, group in groups]

    def _together(self, group: list[Sequenced], depth: int) -> tuple[list[Sequenced], Alike]:
        """Several that begin alike."""
        same: dict[Sequenced, list[Sequenced]] = {}
        for choice in group:
            same.setdefault(choice[:1], []).append(choice[1:])
        if len(same) < len(group):
            choices = [sequence(*first, self._rule(rest, depth)) for first, rest in same.items()]
            return self.shared(choices, depth + 1)
        texts = [_text(choice) for choice in group]
        if shared := commonprefix(texts):  # noqa: RUF071 - letter by letter is what is wanted
            rest = [sequence(Literal(text[len(shared) :]), *one[1:]) for text, one in zip(texts, group, strict=True)]
            return [sequence(Literal(shared), self._rule(rest, depth))], []
        opened = [each for choice in group for each in self._inside(choice)]
        return (group, [group]) if opened == group else self.shared(opened, depth + 1)

    def _rule(self, choices: Sequence[Sequenced], depth: int) -> Ref:
        made, alike = self.shared(choices, depth + 1)
        rule = self.rules.add("choice", made)
        if rule.name not in self.begun.characters:
            self.begun.add(rule.name, made)
        if alike:
            self.alike[rule.name] = alike
        return rule

    def _inside(self, choice: Sequenced) -> list[Sequenced]:
        """The choices of the rule that it begins with, each with what follows."""
        if not choice or not isinstance(choice[0].symbol, Ref) or choice[0] != Part(choice[0].symbol):
            return [choice]
        inside = self.rules.choices(choice[0].symbol)
        self._opened += len(inside)
        if self._opened > _MOST_OPENED:
            raise _TooMuch
        return [sequence(*one, *choice[1:]) for one in inside]


def _text(choice: Sequenced) -> str:
    """The text that a sequence begins with, where it does with one."""
    symbol = choice[0].symbol if choice else Literal("")
    return symbol.text if isinstance(symbol, Literal) and choice and choice[0] == Part(symbol) else ""


def _meet(one: Ranges, other: Ranges) -> bool:
    return any(low <= last and first <= high for low, high in one for first, last in other)


def _growing(rules: NamedRules, alike: Mapping[str, tuple[str, Alike]]) -> str:
    """The choice from which on llama.cpp would follow too many alternatives; empty for none."""
    refs = {name: dict.fromkeys(referred(choices)) for name, choices in rules.items()}
    followed: dict[str, int] = {}
    for name in upwards(refs)[1]:
        followed[name] = max((followed.get(other, 1) for other in refs[name]), default=1)
        choice, groups = alike.get(name, ("", []))
        for group in groups:
            if sum(_leads(refs, alternative, name) for alternative in group) > 1:
                return choice
            inside = [max((followed.get(other, 1) for other in referred([one])), default=1) for one in group]
            followed[name] = max(followed[name], sum(inside))
        if followed[name] > _MOST_FOLLOWED:
            return choice
    return ""


def _leads(refs: Mapping[str, Iterable[str]], alternative: Sequenced, name: str) -> bool:
    """Whether a rule stands in an alternative, or in what that refers to."""
    todo = referred([alternative])
    seen: set[str] = set()
    while todo:
        if (one := todo.pop()) == name:
            return True
        if one not in seen:
            seen.add(one)
            todo += refs[one]
    return False
