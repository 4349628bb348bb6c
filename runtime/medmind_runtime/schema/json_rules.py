"""JSON's own syntax as rules: texts, numbers, arrays, objects of given members. Source: RFC 8259.

Knows no schema. White space is bounded, so that no answer is blanks without end.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from medmind_runtime.schema.gbnf import Characters, Literal, Part, Ref, Rules, Sequenced, sequence, subtract
from medmind_runtime.schema.text_pattern import RAW

_DATE = (
    r"[1-9]\d{3}-(?:(?:01|03|05|07|08|10|12)-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:04|06|09|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d)"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_NAME = r"[a-z\d]{1,20}(?:-[a-z\d]{1,20}){0,1}"
FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": r"^P(?:[1-9]\d{0,2}W|[1-9]\d{0,3}D(?:T[1-9]\d?H)?|T[1-9]\d?(?:H(?:[1-9]\d?M)?|M(?:[1-9]\d?S)?|S))$",
    "uuid": r"^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$",
    "ipv4": rf"^{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}$",
    "ipv6": r"^[\da-f]{1,4}(?::[\da-f]{1,4}){7}$",
    "hostname": rf"^{_NAME}(?:\.{_NAME}){{0,3}}$",
    "email": r"^[a-z\d]{1,20}(?:[._-][a-z\d]{1,20}){0,2}@[a-z\d]{1,20}(?:[.-][a-z\d]{1,20}){0,2}\.[a-z]{2,10}$",
}
"""Formats as expressions; of dates without 29 February, of addresses the usual ones."""
_DIGIT = Characters(((0x30, 0x39),))
_HEX = Characters(((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)))


@dataclass(frozen=True)
class Member:
    """A member of an object: its name, the rule of its value, whether it must be there."""

    name: str
    value: Ref
    required: bool


class JsonRules:
    """Adds rules of JSON to others."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._any: Ref | None = None
        blanks = Part(Characters(((9, 9), (0x20, 0x20))), 0, 20)
        self._space = rules.add("space", [(), sequence(Literal(" ")), sequence(Literal("\n"), blanks)])

    def any(self) -> Ref:
        """Every value."""
        if self._any is None:
            self._any = self._rules.reserve("any")
            kinds = [self.string(0, None), self.number(), *map(self.word, ("boolean", "null"))]
            kinds += [self.object([], self._any), self.array([], self._any, 0, None)]
            self._rules.define(self._any, [sequence(kind) for kind in kinds])
        return self._any

    def word(self, kind: str) -> Ref:
        """Of the type boolean or null."""
        words = ("true", "false") if kind == "boolean" else ("null",)
        return self._rules.add(kind, [sequence(Literal(word)) for word in words])

    def integer(self) -> Ref:
        """A whole number of at most 15 digits."""
        digits = self._rules.add(
            "digits", [sequence(Literal("0")), sequence(Characters(((0x31, 0x39),)), Part(_DIGIT, 0, 14))]
        )
        return self._rules.add("integer", [sequence(Part(Literal("-"), 0, 1), digits)])

    def number(self) -> Ref:
        """A number that floating point can hold."""
        fraction = self._rules.add("fraction", [sequence(Literal("."), Part(_DIGIT, 1, 15))])
        sign = Part(Characters(((0x2B, 0x2B), (0x2D, 0x2D))), 0, 1)
        exponent = self._rules.add(
            "exponent", [sequence(Characters(((0x45, 0x45), (0x65, 0x65))), sign, Part(_DIGIT, 1, 2))]
        )
        return self._rules.add("number", [sequence(self.integer(), Part(fraction, 0, 1), Part(exponent, 0, 1))])

    def string(self, least: int, most: int | None) -> Ref:
        """A text of so many characters; no control character in it, and no half of a surrogate pair."""
        not_half = [
            sequence(
                Characters(((0x30, 0x39), (0x41, 0x43), (0x45, 0x46), (0x61, 0x63), (0x65, 0x66))), Part(_HEX, 3, 3)
            ),
            sequence(Characters(((0x44, 0x44), (0x64, 0x64))), Characters(((0x30, 0x37),)), Part(_HEX, 2, 2)),
        ]
        simple = Characters(tuple((ord(letter),) * 2 for letter in '"/\\bfnrt'))
        escape = self._rules.add(
            "escape", [sequence(simple), sequence(Literal("u"), self._rules.add("code", not_half))]
        )
        character = self._rules.add("character", [sequence(Characters(RAW)), sequence(Literal("\\"), escape)])
        inside = self._rules.repeated(character, least, most)
        return self._rules.add("string", [sequence(Literal('"'), *inside, Literal('"'))])

    def array(self, first: Sequence[Ref], rest: Ref | None, least: int, most: int | None) -> Ref:
        """An array that begins with `first`, as far as it goes, and goes on with any number of `rest`."""
        first = first if most is None else first[:most]
        close = sequence(self._space, Literal("]"))
        tail = close
        if rest is not None and (most is None or most > len(first)):
            more = self._rules.add("more", [self._after_comma(rest)])
            left = None if most is None else most - max(len(first), 1)
            needed = max(0, least - max(len(first), 1))
            tail = sequence(*self._rules.repeated(more, needed, left), *close)
        if not first and rest is not None and most != 0:
            choices = [sequence(Literal("["), self._space, rest, *tail)]
            return self._rules.add("array", choices + [sequence(Literal("["), self._space, Literal("]"))] * (not least))
        for index in reversed(range(1, len(first))):
            end = [close] if index >= least else []
            tail = sequence(self._rules.add("item", [sequence(*self._after_comma(first[index]), *tail), *end]))
        choices = [sequence(Literal("["), self._space, first[0], *tail)] if first else []
        return self._rules.add("array", choices + [sequence(Literal("["), self._space, Literal("]"))] * (not least))

    def object(
        self, members: Sequence[Member], others: Ref | None, *, most: int | None = None, some: bool = False
    ) -> Ref:
        """An object of members in their order, then others by other names.

        Args:
            members: by name.
            others: the rule of their values; None for no others.
            most: of the others.
            some: whether there must be one member at least; then there are some to choose from.
        """
        close = sequence(self._space, Literal("}"))
        later: Sequenced = close
        sooner: list[Sequenced] = [] if some else [sequence(Literal("}"))]
        if others is not None:
            other = self._rules.add("other", [self._member(self._other_name(members), others)])
            more = self._rules.add("more", [self._after_comma(other)])
            later = sequence(*self._rules.repeated(more, 0, most), *close)
            rest = self._rules.repeated(more, 0, None if most is None else most - 1)
            sooner.append(sequence(other, *rest, *close))
        for member in reversed(members):
            key = sequence(Literal(json.dumps(member.name, ensure_ascii=False)))
            one = self._rules.add("member", [self._member(key, member.value)])
            here, first = sequence(*self._after_comma(one), *later), sequence(one, *later)
            if member.required:
                later, sooner = sequence(self._rules.add("members", [here])), [first]
            else:
                later = sequence(self._rules.add("members", [here, later]))
                sooner = [first, *([sequence(self._rules.add("members", sooner))] if sooner else [])]
        inside = self._rules.add("members", sooner)
        return self._rules.add("object", [sequence(Literal("{"), self._space, inside)])

    def _member(self, key: Sequenced, value: Ref) -> Sequenced:
        return sequence(*key, Literal(":"), Part(Literal(" "), 0, 1), value)

    def _after_comma(self, what: Ref) -> Sequenced:
        return sequence(Literal(","), self._space, what)

    def _other_name(self, members: Sequence[Member]) -> Sequenced:
        """A name that is none of theirs, without escapes: `a` and `\\u0061` are one name."""
        return sequence(Literal('"'), self._unlike(frozenset(member.name for member in members)))

    def _unlike(self, names: frozenset[str]) -> Ref:
        """The rest of a name, its closing quote included, that is none of these."""
        letters = sorted({name[0] for name in names if name})
        others = Characters(subtract(RAW, [(ord(letter),) * 2 for letter in letters]))
        choices = [sequence(others, Part(Characters(RAW), 0, None), Literal('"'))]
        choices += [] if "" in names else [sequence(Literal('"'))]
        for letter in letters:
            if any(low <= ord(letter) <= high for low, high in RAW):
                rest = frozenset(name[1:] for name in names if name[:1] == letter)
                choices.append(sequence(Literal(letter), self._unlike(rest)))
        return self._rules.add("unlike", choices)
