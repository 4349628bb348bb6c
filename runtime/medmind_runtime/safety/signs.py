"""A text as patterns read it, one character a word: numbers by their name, slips as the word that was meant.

Knows the tables of lexicon.toml that say what is read instead of what is written; no rule and no topic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmind_runtime.safety import measures
from medmind_runtime.safety.letters import Letters
from medmind_runtime.safety.patterns import OTHER, Bank, Compiler, Part
from medmind_runtime.safety.spelling import Speller
from medmind_runtime.safety.words import Word, plain, split

_SHORT = 2
"""Letters of what nobody shortens further by spelling it: "a m i" is no "MI"."""


@dataclass(frozen=True)
class Text:
    """A text, or a part of it.

    Attributes:
        plain: the whole of it, as `words.plain` gives it.
        words: of the part.
        signs: of the part, a character for each word.
    """

    plain: str
    words: Sequence[Word]
    signs: str

    def part(self, places: range) -> "Text":
        """What stands at these places among the words."""
        within = slice(places.start, places.stop)
        return Text(self.plain, self.words[within], self.signs[within])

    @property
    def written(self) -> str:
        """The part of the plain text."""
        return self.plain[self.words[0].start : self.words[-1].end]


@dataclass(frozen=True)
class Rewrite:
    """What the rules or the classifier would misunderstand, and what they read instead.

    Attributes:
        part: what is written.
        said: the same said plainly.
    """

    part: Part
    said: str

    @property
    def needs(self) -> list[frozenset[str]]:
        """Of its part."""
        return self.part.needs


class Reader:
    """Reads typed text.

    Args:
        lexicon: the contents of lexicon.toml.
        compiler: of its lists, once all rules are compiled.

    Attributes:
        speller, letters: know the words of the rules and those that are like them.

    Raises:
        ValueError: a word of `read_as` stands in no rule.
    """

    def __init__(self, lexicon: Mapping[str, Any], compiler: Compiler) -> None:
        self._figurative = compiler.bank("figurative")
        self._read_as, self._plainly, self._advised = (
            Bank([Rewrite(compiler.part(it), said) for said, all_ in lexicon[table].items() for it in all_])
            for table in ("read_as", "plainly", "advised")
        )
        self._characters = compiler.characters
        if unread := lexicon["read_as"].keys() - self._characters.keys():
            raise ValueError(f"no rule reads {', '.join(sorted(unread))}")
        self._spellings: dict[str, str] = lexicon["spellings"]
        known, real = [word for word in self._characters if word.isalpha()], frozenset(lexicon["real_words"].split())
        self.speller = Speller(known, real)
        shortened = {
            typed for typed, words in self._spellings.items() if len(typed) > _SHORT and typed != words.replace(" ", "")
        }
        self.letters = Letters({*known, *real, *shortened})

    def read(self, typed: str) -> Text:
        """A text as typed."""
        text = self.letters.joined(plain(typed))
        words = split(text, self._spellings)
        return Text(text, words, "".join(self._sign(words, at) for at in range(len(words))))

    def _sign(self, words: Sequence[Word], at: int) -> str:
        word = words[at]
        named = measures.name(words, at) if word.text[0].isdigit() or word.value is not None else ""
        return self._characters.get(f"<{named}>" if named else self.speller.word(word.text), OTHER)

    def literal(self, signs: str) -> str:
        """The signs with what is `read_as` a word as that word, and figures of speech blotted out."""
        for rewrite in self._read_as.candidates(set(signs)):
            for first, last in list(rewrite.part.places(signs)):
                signs = signs[:first] + self._characters[rewrite.said] * (last - first) + signs[last:]
        for part in self._figurative.candidates(set(signs)):
            for first, last in list(part.places(signs)):
                signs = signs[:first] + OTHER * (last - first) + signs[last:]
        return signs

    def plainly(self, text: Text) -> str:
        """A part of a text, in which what the classifier mishears is said plainly."""
        return self._rewritten(text, self._plainly)

    def unadvised(self, text: Text) -> str:
        """A part of a text, in which nobody advises to leave somebody alone."""
        return self._rewritten(text, self._advised)

    @staticmethod
    def _rewritten(text: Text, rewrites: Bank[Rewrite]) -> str:
        found = [
            (span, rewrite.said)
            for rewrite in rewrites.candidates(set(text.signs))
            for span in rewrite.part.places(text.signs)
        ]
        words = text.words
        told, at = "", words[0].start
        for (first, last), said in sorted(found, key=lambda one: (one[0][0], -one[0][1])):
            if words[first].start >= at:
                told += f"{text.plain[at : words[first].start]} {said} "
                at = words[last - 1].end
        return told + text.plain[at : words[-1].end]
