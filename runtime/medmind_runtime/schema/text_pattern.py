"""A regular expression as choices of a grammar, for texts inside JSON's quotes.

Knows the part of regular expressions that a grammar can hold: no look-around, no back reference, no anchor but at the
ends. A class such as `\\d` is of ASCII, as in ECMA 262, so that every dialect takes what is made.
"""

from dataclasses import dataclass

from medmind_runtime.schema.gbnf import Characters, Literal, Ranges, Ref, Rules, Sequenced, sequence, subtract

RAW: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF))
"""Characters that stand for themselves in a JSON text."""
_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
_EVERY: Ranges = ((0, 0x10FFFF),)
_CLASSES: dict[str, Ranges] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((9, 10), (12, 13), (0x20, 0x20)),
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_MOST_REPEATED = 2000
_DEEPEST = 50


class NoPattern(ValueError):
    """It cannot be made a grammar; the message says why."""


@dataclass(frozen=True)
class Matched:
    """What a part of an expression matches.

    Attributes:
        choices: as rules.
        least, most: characters; None for without end.
        times: how often bounded repetitions inside repeat, multiplied.
    """

    choices: tuple[Sequenced, ...]
    least: int
    most: int | None
    times: int = 1


def rules_for(pattern: str, rules: Rules) -> tuple[Ref, int, int | None]:
    """The rule of the texts that a pattern is found in, and how many characters they have at least and at most.

    Raises:
        NoPattern: there is none.
    """
    reader = _Reader(pattern, rules)
    matched = reader.whole()
    return rules.add("pattern", matched.choices), matched.least, matched.most


class _Reader:
    def __init__(self, pattern: str, rules: Rules) -> None:
        self._pattern, self._rules, self._at, self._depth = pattern, rules, 0, 0
        self._choosing = False

    def whole(self) -> Matched:
        """The expression; what it does not anchor may be preceded and followed by anything."""
        anything = self._repeated(self._characters(RAW), 0, None)
        before = [] if self._take("^") else [anything]
        inside = self._choice()
        after = [] if self._take("$") else [anything]
        if self._at < len(self._pattern):
            raise NoPattern(f"it holds {self._pattern[self._at :][:10]!r} at character {self._at}")
        if self._choosing and not (before and after):
            raise NoPattern("an anchor holds for one alternative only: put them in parentheses")
        return self._sequence([*before, inside, *after])

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        if not (character := self._peek()):
            raise NoPattern("it ends too early")
        self._at += 1
        return character

    def _choice(self) -> Matched:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise NoPattern(f"its parentheses are nested more than {_DEEPEST} deep")
        found = [self._concatenation()]
        while self._take("|"):
            found.append(self._concatenation())
        self._depth -= 1
        if self._depth == 0 and len(found) > 1:
            self._choosing = True
        return Matched(
            tuple(choice for matched in found for choice in matched.choices),
            min(matched.least for matched in found),
            _largest([matched.most for matched in found]),
            max(matched.times for matched in found),
        )

    def _concatenation(self) -> Matched:
        found: list[Matched] = []
        while (character := self._peek()) and character not in "|)$":
            found.append(self._quantified())
        return self._sequence(found)

    def _sequence(self, found: list[Matched]) -> Matched:
        parts = [part for matched in found for part in self._inline(matched)]
        mosts = [matched.most for matched in found]
        return Matched(
            (sequence(*parts),),
            sum(matched.least for matched in found),
            None if None in mosts else sum(most or 0 for most in mosts),
            max((matched.times for matched in found), default=1),
        )

    def _inline(self, matched: Matched) -> Sequenced:
        return matched.choices[0] if len(matched.choices) == 1 else sequence(self._rules.add("part", matched.choices))

    def _quantified(self) -> Matched:
        atom = self._atom()
        begin = self._at
        least, most = self._quantifier()
        if self._at > begin:
            self._take("?")  # how greedy it is decides what is found, not whether
        if (least, most) == (1, 1):
            return atom
        if self._peek() in tuple("?+*{"):
            raise NoPattern(f"it holds {self._peek()!r} behind a repetition at character {self._at}")
        if atom.least == 0 and (most is None or most > 1):
            raise NoPattern("it repeats what may be empty")
        return self._repeated(atom, least, most)

    def _quantifier(self) -> tuple[int, int | None]:
        for mark, bounds in {"?": (0, 1), "*": (0, None), "+": (1, None)}.items():
            if self._take(mark):
                return bounds
        if self._peek() != "{":
            return 1, 1
        end = self._pattern.find("}", self._at)
        first, comma, last = self._pattern[self._at + 1 : end].partition(",")
        if end < 0 or not first.isdecimal() or not (last.isdecimal() or not last) or len(first + last) > 8:
            raise NoPattern(f"it holds no repetition at character {self._at}")
        self._at = end + 1
        least, most = int(first), (int(last) if last else None) if comma else int(first)
        if max(least, most or 0) > _MOST_REPEATED or (most is not None and most < least):
            raise NoPattern(f"it repeats {{{first}{comma}{last}}}: up to {_MOST_REPEATED} times are possible")
        return least, most

    def _repeated(self, atom: Matched, least: int, most: int | None) -> Matched:
        times = atom.times * max(1, least, most or 0)
        if times > _MOST_REPEATED:
            raise NoPattern(f"its repetitions multiply to {times}: {_MOST_REPEATED} are possible")
        only = atom.choices[0] if len(atom.choices) == 1 and len(atom.choices[0]) == 1 else None
        simple = (
            only is not None and (only[0].least, only[0].most) == (1, 1) and not isinstance(only[0].symbol, Literal)
        )
        symbol = only[0].symbol if only is not None and simple else self._rules.add("part", atom.choices)
        repeated = self._rules.repeated(symbol, least, most)
        longest = None if most is None or (atom.most is None and most) else (atom.most or 0) * most
        return Matched((repeated,), atom.least * least, longest, times)

    def _atom(self) -> Matched:
        character = self._next()
        if character == "(":
            self._take("?:")
            if self._peek() == "?":
                raise NoPattern(f"it holds '(?' at character {self._at - 1}")
            inside = self._choice()
            if not self._take(")"):
                raise NoPattern("a parenthesis is not closed, or an anchor stands inside")
            return inside
        if character == "[":
            return self._characters(self._class())
        if character == ".":
            return self._characters(subtract(_EVERY, ((10, 10), (13, 13), (0x2028, 0x2029))))
        if character == "\\":
            return self._characters(self._escape(in_class=False))
        if character in "^*+?{":
            raise NoPattern(f"it holds {character!r} at character {self._at - 1}")
        return self._characters(((ord(character), ord(character)),))

    def _escape(self, *, in_class: bool) -> Ranges:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.lower() in _CLASSES:
            return subtract(((0, 0x7F),), _CLASSES[character.lower()])
        if character in "xu":
            size = 2 if character == "x" else 4
            digits = self._pattern[self._at : self._at + size]
            if len(digits) < size or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
                raise NoPattern(f"it holds no \\{character} at character {self._at}")
            self._at += size
            return ((int(digits, 16),) * 2,)
        if in_class and character == "b":
            return ((8, 8),)
        if character.isalnum() and character not in _CONTROLS:
            raise NoPattern(f"it holds \\{character}")
        return ((ord(_CONTROLS.get(character, character)),) * 2,)

    def _class(self) -> Ranges:
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        while not self._take("]"):
            low = self._member()
            ahead = self._pattern[self._at : self._at + 2]
            if len(low) == 1 and low[0][0] == low[0][1] and ahead.startswith("-") and ahead != "-]":
                self._at += 1
                high = self._member()
                if len(high) != 1 or high[0][0] != high[0][1] or high[0][0] < low[0][0]:
                    raise NoPattern(f"it holds no range before character {self._at}")
                low = ((low[0][0], high[0][0]),)
            found += low
        return subtract(_EVERY, found) if negated else tuple(found)

    def _member(self) -> Ranges:
        character = self._next()
        return self._escape(in_class=True) if character == "\\" else ((ord(character), ord(character)),)

    def _characters(self, ranges: Ranges) -> Matched:
        """One character of these, as JSON writes it."""
        raw = subtract(RAW, subtract(_EVERY, ranges))
        choices: list[Sequenced] = [sequence(Characters(raw))] if raw else []
        for text, written in _ESCAPED.items():
            if any(low <= ord(text) <= high for low, high in ranges):
                choices.append(sequence(Literal(written)))
        if not choices:
            raise NoPattern("it wants a character that JSON cannot hold")
        return Matched(tuple(choices), 1, 1)


def _largest(mosts: list[int | None]) -> int | None:
    return None if None in mosts else max(most or 0 for most in mosts)
