"""The small language in which rules are written, compiled to regular expressions over words instead of letters.

Every word that any rule names has a character of its own, so that a pattern over words is one over characters. Knows
no medicine: words and patterns come from lexicon.toml and rules.toml.

    chest            this word
    hurt~            with its plural, tenses and -ing
    <pain>           any word or phrase of the list `pain` in the lexicon
    a|b              either of two words; of phrases too, whose words are tied together: boiler|gas_fire|stove
    word?            may be left out
    ...              up to six words between, none of them a negation; `..` up to two
    this & that      both in one sentence, in any order; `&&`: anywhere in the text; after it, `|` stands between
                     whole phrases

Small words (a, the, my, very) may stand between any two words of a pattern.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from medmind_runtime.safety.words import BREAK, SENTENCE

OTHER = "\x01"
"""A word that no rule knows."""
_MEASURED = "="
"""Before a name in a phrase: it is a measured list, which has one character."""


def inflected(word: str) -> list[str]:
    """A word with its regular forms: plural or third person, -ed, -ing."""
    if word.endswith("e"):
        forms = [f"{word}s", f"{word}d", f"{word[:-1]}ing"]
    elif word.endswith("y") and word[-2] not in "aeiou":
        forms = [f"{word[:-1]}ies", f"{word[:-1]}ied", f"{word}ing"]
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        forms = [f"{word}es", f"{word}ed", f"{word}ing"]
    else:
        forms = [f"{word}s", f"{word}ed", f"{word}ing"]
        if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", word):  # one syllable: stop, stopped
            forms += [f"{word}{word[-1]}ed", f"{word}{word[-1]}ing"]
    return [word, *forms]


def _untied(phrase: str) -> str:
    """A phrase whose words may be tied together, as elsewhere; the name of a list stays."""
    return " ".join(word if "<" in word else word.replace("_", " ") for word in phrase.split())


class Part:
    """One expression of a pattern; compiled when a text first has what it needs.

    Args:
        expression: a regular expression over characters that are words.
        needs: sets of characters, of each of which one must be in a text where it can match.
    """

    def __init__(self, expression: str, needs: Sequence[frozenset[str]]) -> None:
        self._expression = expression
        self.needs = sorted(needs, key=len)
        self._compiled: re.Pattern[str] | None = None

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it matches, as (first, last + 1) in words."""
        for need in self.needs:
            if need.isdisjoint(text):
                return
        if self._compiled is None:
            self._compiled = re.compile(self._expression)
        for found in self._compiled.finditer(text):
            yield found.span()


@dataclass(frozen=True)
class Pattern:
    """What all must match.

    Attributes:
        source: as written.
        anywhere: whether the parts may stand in different sentences.
    """

    source: str
    parts: tuple[Part, ...]
    anywhere: bool

    @property
    def needs(self) -> list[frozenset[str]]:
        """As of a part: those of all its parts."""
        return sorted((need for part in self.parts for need in part.needs), key=len)


class _Needing(Protocol):
    @property
    def needs(self) -> list[frozenset[str]]: ...


Kind = TypeVar("Kind", bound=_Needing)


class Bank(Generic[Kind]):
    """Many parts or patterns, of which a text picks the few that its words could match.

    Args:
        members: in the order in which they are to be tried.
    """

    def __init__(self, members: Sequence[Kind]) -> None:
        self._members = [(member, member.needs[1:]) for member in members]
        self._by_character: dict[str, list[int]] = {}
        for place, member in enumerate(members):
            for character in member.needs[0]:
                self._by_character.setdefault(character, []).append(place)

    def candidates(self, characters: Set[str]) -> Iterator[Kind]:
        """Those that a text of these characters may match, in order."""
        places = {place for character in characters for place in self._by_character.get(character, ())}
        for place in sorted(places):
            member, needs = self._members[place]
            if not any(need.isdisjoint(characters) for need in needs):
                yield member


class Compiler:
    """Compiles patterns over one lexicon.

    Args:
        lists: phrases by the name of their list; a phrase may hold `word~` and `<list>`.
        measured: names of lists whose members are no words but numbers of a kind, such as `high_fever`.
        small: the list of words that may stand between others; negations: words that no gap may hold.
    """

    def __init__(self, lists: Mapping[str, Sequence[str]], measured: Iterable[str], small: str, negations: str) -> None:
        self._lists = lists
        self._characters: dict[str, str] = {SENTENCE: "\n", BREAK: ","}
        self._expanded: dict[str, str] = {}
        self._firsts: dict[str, frozenset[str]] = {}
        self._parts: dict[tuple[str, bool], Part] = {}
        for name in measured:
            self._character(f"<{name}>")
        self._measured = {f"<{name}>" for name in measured}
        self._small = f"[{''.join(self._class(phrase) for phrase in lists[small])}]{{0,2}}"
        no = "".join(self._class(phrase) for phrase in lists[negations])
        self._between = f"[^\n{no}]"

    @property
    def characters(self) -> Mapping[str, str]:
        """The character of each known word and measured list; complete once all patterns are compiled."""
        return self._characters

    def bank(self, name: str) -> Bank[Part]:
        """The phrases of a list, each a part."""
        return Bank([self.part(phrase) for phrase in self._lists[name]])

    def pattern(self, source: str) -> Pattern:
        """Compile one pattern.

        Raises:
            ValueError: it names a list that there is not, is empty, or has `&` beside `&&`.
        """
        anywhere = "&&" in source
        if anywhere and "&" in source.replace("&&", ""):
            raise ValueError(f"{source!r} asks for both one sentence and any: write && throughout")
        first, *others = source.split("&&" if anywhere else "&")
        parts = [self.part(first), *(self.part(text, phrases="..." not in text) for text in others)]
        return Pattern(source, tuple(parts), anywhere)

    def part(self, source: str, *, phrases: bool = False) -> Part:
        """Compile an expression without `&`; with `phrases`, `|` stands between phrases and not between words."""
        if (source, phrases) not in self._parts:
            if phrases and len(choices := [_untied(phrase) for phrase in source.split("|")]) > 1:
                self._lists = {**self._lists, source: choices}
                expression, firsts = self._alternatives(f"<{source}>")
                self._parts[source, phrases] = Part(expression, [firsts])
            else:
                self._parts[source, phrases] = Part(*self._sequence(source.split()))
        return self._parts[source, phrases]

    def _sequence(self, elements: Sequence[str]) -> tuple[str, list[frozenset[str]]]:
        if not elements:
            raise ValueError("an empty pattern")
        made, glue = "", ""
        needs: list[frozenset[str]] = []
        for element in elements:
            if element in ("...", ".."):
                glue = f"{self._between}{{0,{6 if element == '...' else 2}}}?"
                continue
            optional = element.endswith("?")
            body, firsts = self._alternatives(element.removesuffix("?"))
            if optional:
                made += f"(?:{glue}{body})?" if made else f"(?:{body}{self._small})?"
            else:
                made += f"{glue}{body}"
                needs.append(firsts)
            if made:
                glue = self._small
        return made, needs

    def _alternatives(self, element: str) -> tuple[str, frozenset[str]]:
        if element not in self._expanded:
            single, longer, firsts = "", [], set[str]()
            for choice in [element] if element[1:-1] in self._lists else element.split("|"):
                for phrase in self._phrases(choice):
                    words = phrase.split()
                    if (len(words) == 1 and not {"<", "|"} & set(words[0])) or phrase.startswith(_MEASURED):
                        single += self._class(words[0])
                        firsts.update(self._class(words[0]))
                    else:
                        if len(words) > 1:
                            expression, needs = self._sequence(words)
                            firsts |= min(needs, key=len)
                        else:
                            expression, own = self._alternatives(words[0])
                            firsts |= own
                        longer.append(expression)
            choices = [*longer, f"[{single}]"] if single else longer
            self._expanded[element] = f"(?:{'|'.join(choices)})"
            self._firsts[element] = frozenset(firsts)
        return self._expanded[element], self._firsts[element]

    def _phrases(self, choice: str) -> Sequence[str]:
        if not choice.startswith("<"):
            return [choice.replace("_", " ")]
        if choice in self._measured:
            return [f"{_MEASURED}{choice}"]
        name = choice[1:-1]
        if name not in self._lists:
            raise ValueError(f"there is no list {choice}")
        return self._lists[name]

    def _class(self, word: str) -> str:
        """The characters of a word and, with `~`, of its forms."""
        if word.startswith(_MEASURED):
            return self._character(word[1:])
        forms = inflected(word[:-1]) if word.endswith("~") else [word]
        return "".join(self._character(form) for form in forms)

    def _character(self, word: str) -> str:
        return self._characters.setdefault(word, chr(0x4E00 + len(self._characters)))
