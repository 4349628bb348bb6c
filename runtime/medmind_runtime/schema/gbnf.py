"""Rules of a grammar in llama.cpp's notation, GBNF: as values and as text.

Knows nothing of JSON, nor what the rules cost: see cost.py. Source: llama.cpp's grammars/README.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix

_MOST_REPEATED = 2000
"""llama.cpp refuses a repetition of more, and takes a longer upper bound for none (MAX_REPETITION_THRESHOLD)."""

_DEEPEST_PREFIX = 50


Ranges = tuple[tuple[int, int], ...]
"""Of code points, both ends of each included."""


@dataclass(frozen=True)
class Literal:
    """A text as it stands."""

    text: str


@dataclass(frozen=True)
class Characters:
    """One character out of ranges."""

    ranges: Ranges


@dataclass(frozen=True)
class Ref:
    """What another rule describes."""

    name: str


Symbol = Literal | Characters | Ref


@dataclass(frozen=True)
class Part:
    """A symbol, and how often it comes: at least and at most, None for without end."""

    symbol: Symbol
    least: int = 1
    most: int | None = 1


Sequenced = tuple[Part, ...]
"""Parts one after the other."""


def sequence(*symbols: Symbol | Part) -> Sequenced:
    """Symbols one after the other; empty texts are left out."""
    parts = (symbol if isinstance(symbol, Part) else Part(symbol) for symbol in symbols)
    return tuple(part for part in parts if part.symbol != Literal("") and part.most != 0)


def referred(choices: Sequence[Sequenced]) -> list[str]:
    """Names of the rules that sequences refer to."""
    return [part.symbol.name for choice in choices for part in choice if isinstance(part.symbol, Ref)]


@dataclass
class Rules:
    """Named rules, each a choice between sequences. Equal rules are kept once."""

    _rules: dict[str, tuple[Sequenced, ...]] = field(default_factory=dict)
    _names: dict[tuple[Sequenced, ...], str] = field(default_factory=dict)
    _given: int = 0

    def reserve(self, hint: str) -> Ref:
        """A name whose rule is set later, so that rules can refer to each other in a circle."""
        self._given += 1
        return Ref(f"{hint}-{self._given}")

    def define(self, ref: Ref, choices: Sequence[Sequenced]) -> None:
        """Give a reserved name its rule."""
        self._rules[ref.name] = tuple(dict.fromkeys(choices))

    def add(self, hint: str, choices: Sequence[Sequenced]) -> Ref:
        """The rule of a choice between sequences."""
        kept = tuple(dict.fromkeys(choices))
        if len(kept) == 1 and len(kept[0]) == 1 and kept[0][0] == Part(kept[0][0].symbol):
            symbol = kept[0][0].symbol
            if isinstance(symbol, Ref):
                return symbol
        if kept not in self._names:
            ref = self.reserve(hint)
            self._names[kept] = ref.name
            self._rules[ref.name] = kept
        return Ref(self._names[kept])

    def choices(self, ref: Ref) -> tuple[Sequenced, ...]:
        """The sequences that a rule chooses between."""
        return self._rules[ref.name]

    @property
    def named(self) -> Mapping[str, tuple[Sequenced, ...]]:
        """All rules by their names."""
        return self._rules

    def texts(self, hint: str, texts: Sequence[str], depth: int = 0) -> Ref:
        """One of some texts; what several begin with stands once, since llama.cpp follows every choice at a time."""
        groups: dict[str, list[str]] = {}
        for text in dict.fromkeys(texts):
            groups.setdefault(text[:1], []).append(text)
        choices: list[Sequenced] = []
        for group in groups.values():
            shared = commonprefix(group)  # noqa: RUF071 - letter by letter is what is wanted
            if len(group) == 1 or depth == _DEEPEST_PREFIX:
                choices += [sequence(Literal(text)) for text in group]
            else:
                rest = self.texts(hint, [text[len(shared) :] for text in group], depth + 1)
                choices.append(sequence(Literal(shared), rest))
        return self.add(hint, choices)

    def repeated(self, symbol: Symbol, least: int, most: int | None) -> Sequenced:
        """A symbol so often, in pieces that llama.cpp takes."""
        whole, left = divmod(least, _MOST_REPEATED)
        parts = [Part(symbol, _MOST_REPEATED, _MOST_REPEATED)] * whole + [Part(symbol, left, left)] * (left > 0)
        if most is None:
            return (*parts, Part(symbol, 0, None))
        return (*parts, *self._up_to(symbol, most - least))

    def _up_to(self, symbol: Symbol, most: int) -> Sequenced:
        rest: Sequenced = sequence(Part(symbol, 0, most % _MOST_REPEATED))
        for _ in range(most // _MOST_REPEATED):
            full = Part(symbol, _MOST_REPEATED, _MOST_REPEATED)
            rest = sequence(self.add("up-to", [sequence(Part(symbol, 0, _MOST_REPEATED - 1)), (full, *rest)]))
        return rest

    def keep(self, root: Ref) -> None:
        """Leave out the rules that nothing refers to, beginning with a root."""
        kept = {root.name: None}
        todo = [root.name]
        while todo:
            refs = dict.fromkeys(other for other in referred(self._rules[todo.pop()]) if other not in kept)
            kept.update(refs)
            todo += refs
        self._rules = {name: choices for name, choices in self._rules.items() if name in kept}
        self._names = {choices: name for choices, name in self._names.items() if name in kept}

    def text(self, root: Ref) -> str:
        """GBNF; its root is the rule given."""
        lines = [f"root ::= {root.name}"]
        lines += [f"{name} ::= {' | '.join(map(_written, choices))}" for name, choices in self._rules.items()]
        return "\n".join(lines) + "\n"


def _written(choice: Sequenced) -> str:
    return " ".join(_symbol(part.symbol) + _times(part) for part in choice) or '""'


def _symbol(symbol: Symbol) -> str:
    match symbol:
        case Literal(text):
            return '"' + "".join(map(_in_text, text)) + '"'
        case Characters(ranges):
            return "[" + "".join(_range(first, last) for first, last in ranges) + "]"
        case Ref(name):
            return name


def _times(part: Part) -> str:
    match (part.least, part.most):
        case (1, 1):
            return ""
        case (0, 1):
            return "?"
        case (0, None):
            return "*"
        case (1, None):
            return "+"
        case (least, most):
            return f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"


def _in_text(character: str) -> str:
    return character if character.isalnum() or character in " {}:,.-+_'/()" else _escaped(ord(character))


def _range(first: int, last: int) -> str:
    one = _in_range(first)
    return one if first == last else f"{one}-{_in_range(last)}"


def _in_range(code: int) -> str:
    return chr(code) if code < 128 and chr(code).isalnum() else _escaped(code)


def _escaped(code: int) -> str:
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def subtract(ranges: Sequence[tuple[int, int]], without: Sequence[tuple[int, int]]) -> Ranges:
    """Ranges of code points less others."""
    left = sorted(ranges)
    for first, last in without:
        left = [piece for low, high in left for piece in _outside(low, high, first, last)]
    return tuple(left)


def _outside(low: int, high: int, first: int, last: int) -> Iterator[tuple[int, int]]:
    if low < first:
        yield low, min(high, first - 1)
    if high > last:
        yield max(low, last + 1), high
