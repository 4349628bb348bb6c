"""What the rules of a grammar begin with: other rules, the empty text, characters.

Knows the rules as values, neither their notation nor their cost.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medmind_runtime.schema.gbnf import Characters, Literal, Part, Ranges, Ref, Sequenced

NamedRules = Mapping[str, tuple[Sequenced, ...]]
"""As `gbnf.Rules.named` gives them."""


@dataclass
class Beginnings:
    """The characters that texts begin with.

    Attributes:
        characters: of each rule's texts.
        empty: names of the rules that the empty text follows.
    """

    characters: dict[str, Ranges]
    empty: set[str]

    @classmethod
    def of(cls, rules: NamedRules) -> "Beginnings":
        """Those of all rules; none may begin with itself."""
        begun = cls({}, set(_empty(rules)))
        for name in upwards(first_rules(rules))[1]:
            begun.add(name, rules[name])
        return begun

    def add(self, name: str, choices: Sequence[Sequenced]) -> None:
        """One more rule, which refers to known ones."""
        self.characters[name] = joined(one for choice in choices for one in self.ranges(choice))
        if any(all(map(self._skipped, choice)) for choice in choices):
            self.empty.add(name)

    def ranges(self, choice: Sequenced) -> Iterator[tuple[int, int]]:
        """The characters that a sequence's texts begin with."""
        for part in choice:
            match part.symbol:
                case Literal(text):
                    yield (ord(text[0]), ord(text[0]))
                case Characters(ranges):
                    yield from ranges
                case Ref(name):
                    yield from self.characters[name]
            if not self._skipped(part):
                return

    def _skipped(self, part: Part) -> bool:
        return part.least == 0 or (isinstance(part.symbol, Ref) and part.symbol.name in self.empty)


def first_rules(rules: NamedRules) -> dict[str, list[str]]:
    """The rules that each rule can begin with, as often as it does."""
    empty = _empty(rules)
    begins: dict[str, list[str]] = {}
    for name, choices in rules.items():
        found = begins[name] = []
        for choice in choices:
            for part in choice:
                if isinstance(part.symbol, Ref):
                    found.append(part.symbol.name)
                if part.least and not (isinstance(part.symbol, Ref) and part.symbol.name in empty):
                    break
    return begins


def upwards(others: Mapping[str, Collection[str]]) -> tuple[str, list[str]]:
    """A rule that leads to itself, empty for none; and all rules, each behind those that it leads to but in circles."""
    circular = ""
    order: dict[str, None] = {}
    for start in others:
        open_ = {start: iter(others[start])} if start not in order else {}
        while open_:
            name, todo = next(reversed(open_.items()))
            other = next((other for other in todo if other not in order), None)
            if other is None:
                order[name] = None
                del open_[name]
            elif other in open_:
                circular = circular or other
            else:
                open_[other] = iter(others[other])
    return circular, list(order)


def growing(rules: NamedRules, holds: Callable[[Part], bool]) -> frozenset[str]:
    """The rules that have a choice each of whose parts holds, or is such a rule."""
    found: set[str] = set()

    def held(part: Part) -> bool:
        return holds(part) or (isinstance(part.symbol, Ref) and part.symbol.name in found)

    grows = True
    while grows:  # what a rule refers to stands before it, but for circles: few rounds
        before = len(found)
        for name, choices in rules.items():
            if name not in found and any(all(map(held, choice)) for choice in choices):
                found.add(name)
        grows = len(found) > before
    return frozenset(found)


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def _empty(rules: NamedRules) -> frozenset[str]:
    """Names of the rules that the empty text follows."""
    return growing(rules, lambda part: part.least == 0)
