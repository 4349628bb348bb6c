"""What the rules of a grammar cost llama.cpp, which is to be known before it sees them: some would end the process.

Knows the rules as values, not their notation. Source: llama.cpp's src/llama-grammar.cpp.
"""

from dataclasses import dataclass

from medmind_runtime.schema.gbnf import Characters, Literal, Part, Ref
from medmind_runtime.schema.rule_beginnings import NamedRules, first_rules, growing, upwards


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
    """What the rules cost llama.cpp; without depth and beginnings where a rule begins with itself."""
    finite = growing(rules, lambda part: part.least == 0 or not isinstance(part.symbol, Ref))
    endless = next((name for name in rules if name not in finite), "")
    begins = first_rules(rules)
    circular, order = upwards(begins)
    depth: dict[str, int] = {}
    ways: dict[str, int] = {}
    for name in [] if circular else order:
        depth[name] = 1 + max((depth[other] for other in begins[name]), default=0)
        ways[name] = 1 + sum(ways[other] for other in begins[name])
    elements = sum(1 + sum(_elements(part) for part in choice) for choices in rules.values() for choice in choices)
    return Cost(elements, max(depth.values(), default=0), sum(ways.values()), circular, endless)


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
