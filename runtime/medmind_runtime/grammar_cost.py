"""What the rules of a grammar cost llama.cpp, which is to be known before it sees them: some would end the process.

Knows the rules as values, not their notation. Source: llama.cpp's src/llama-grammar.cpp.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medmind_runtime.gbnf import Characters, Literal, Part, Ref, Sequenced

NamedRules = Mapping[str, tuple[Sequenced, ...]]
"""As `gbnf.Rules.named` gives them."""


@dataclass(frozen=True)
class Cost:
    """What llama.cpp makes of the rules.

    Attributes:
        elements: all that its rules hold, repetitions written out.
        depth: of rules that begin with one another; llama.cpp follows them by recursion.
        beginnings: ways down such rules, summed over all rules; llama.cpp walks each one.
        circular: a rule that begins with itself; empty for none.
        endless: a rule that no finite text follows; empty for none.
    """

    elements: int
    depth: int
    beginnings: int
    circular: str
    endless: str


def cost_of(rules: NamedRules) -> Cost:
    """What the rules cost llama.cpp."""
    finite = _finite(rules)
    endless = next((name for name in rules if name not in finite), "")
    circular, depth, beginnings = _walked(rules)
    elements = sum(1 + sum(_elements(part) for part in choice) for choices in rules.values() for choice in choices)
    return Cost(elements, depth, beginnings, circular, endless)


def _empty(rules: NamedRules) -> frozenset[str]:
    """Names of the rules that the empty text follows."""
    found: set[str] = set()

    def skipped(part: Part) -> bool:
        return part.least == 0 or (isinstance(part.symbol, Ref) and part.symbol.name in found)

    _grow(rules, found, skipped)
    return frozenset(found)


def _finite(rules: NamedRules) -> set[str]:
    found: set[str] = set()

    def ends(part: Part) -> bool:
        return part.least == 0 or not isinstance(part.symbol, Ref) or part.symbol.name in found

    _grow(rules, found, ends)
    return found


def _grow(rules: NamedRules, found: set[str], holds: Callable[[Part], bool]) -> None:
    """Add the rules that have a choice all of whose parts hold, until nothing is added any more."""
    grows = True
    while grows:  # what a rule refers to stands before it, but for circles: few rounds
        before = len(found)
        for name, choices in rules.items():
            if name not in found and any(all(map(holds, choice)) for choice in choices):
                found.add(name)
        grows = len(found) > before


def _walked(rules: NamedRules) -> tuple[str, int, int]:
    """A rule that begins with itself, else the depth and the number of the ways down the beginnings of rules."""
    begins = _beginnings(rules)
    depth: dict[str, int] = {}
    ways: dict[str, int] = {}
    for start in rules:
        open_ = {start: iter(begins[start])} if start not in depth else {}
        while open_:
            name, todo = next(reversed(open_.items()))
            other = next((other for other in todo if other not in depth), None)
            if other is None:
                depth[name] = 1 + max((depth[other] for other in begins[name]), default=0)
                ways[name] = 1 + sum(ways[other] for other in begins[name])
                del open_[name]
            elif other in open_:
                return other, 0, 0
            else:
                open_[other] = iter(begins[other])
    return "", max(depth.values(), default=0), sum(ways.values())


def _beginnings(rules: NamedRules) -> dict[str, list[str]]:
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


def _elements(part: Part) -> int:
    match part.symbol:
        case Literal(text):
            size = len(text)
        case Characters(ranges):
            size = 2 * len(ranges)
        case Ref():
            size = 1
    more = 1 if part.most is None else part.most - part.least
    return size * part.least + (size + 3) * more
