"""Whether a question tells of an emergency or of self-harm, decided by rules and weights before any model.

Knows the rules' and weights' files. The order of the topics in rules.toml is the order of urgency.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from medmind_runtime.safety import measures
from medmind_runtime.safety.context import Context, Cues, read
from medmind_runtime.safety.leaning import Leaning, concepts, own_signs, signs
from medmind_runtime.safety.patterns import OTHER, Bank, Compiler, Part, Pattern
from medmind_runtime.safety.spelling import Speller
from medmind_runtime.safety.words import Word, split

LONGEST = 4000
"""Characters that are read of each end of a long text."""


@dataclass(frozen=True)
class Rule:
    """One pattern of a topic.

    Attributes:
        topic: its place among the topics.
        pattern: what raises the alarm, or takes it back.
        kind: the key of rules.toml it stands under: `sure`, `when`, `even`, `unless`.
        firm: history and suppositions take nothing back, only a plain denial does.
    """

    topic: int
    pattern: Pattern
    kind: str
    firm: bool

    @property
    def needs(self) -> list[frozenset[str]]:
        """Of its pattern."""
        return self.pattern.needs


@dataclass(frozen=True)
class Alarm:
    """What was recognised.

    Attributes:
        topic: its name.
        say: what the answer has to begin with.
        because: the pattern that matched; "leaning" where only the words as a whole tell it.
    """

    topic: str
    say: str
    because: str


class Triage:
    """The rules, compiled. Use `triage()`, which keeps them.

    Args:
        lexicon, rules, weights: the contents of lexicon.toml, rules.toml and leaning.json.

    Raises:
        ValueError: a rule names a list that there is not.
    """

    def __init__(self, lexicon: Mapping[str, Any], rules: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        lists: dict[str, list[str]] = lexicon["lists"]
        compiler = Compiler(lists, measures.NAMES, "small", "negations")
        banks = {name: Bank([compiler.part(phrase) for phrase in lists[name]]) for name in ("figurative", *_CUES)}
        self._figurative = banks.pop("figurative")
        self._cues = Cues(**banks)
        phrases: dict[str, str] = rules["phrases"]
        self._topics = [(name, entry["say"].strip().format(**phrases)) for name, entry in rules["topic"].items()]
        self._rules = Bank(
            [
                Rule(place, compiler.pattern(source), kind, entry.get("firm", False))
                for place, entry in enumerate(rules["topic"].values())
                for kind in _KINDS
                for source in entry.get(kind, ())
            ]
        )
        self._characters = compiler.characters
        self._spellings: dict[str, str] = lexicon["spellings"]
        self._speller = Speller(
            (word for word in self._characters if word.isalpha()), frozenset(lexicon["real_words"].split())
        )
        self._places = {name: place for place, (name, _) in enumerate(self._topics)}
        self._concepts = concepts(lists)
        self._leaning = Leaning(weights)

    def alarms(self, text: str) -> list[Alarm]:
        """What the text tells of, most urgent first; empty for nearly every text."""
        found, raised = self._found(text)
        sure = {topic for topic, rule in raised.items() if rule.kind == "sure"}
        heard = self._leaning.judged(found, raised.keys(), sure)
        places = sorted(self._places[topic] for topic in heard)
        because = {topic: rule.pattern.source for topic, rule in raised.items()}
        return [Alarm(*self._topics[place], because.get(self._topics[place][0], "leaning")) for place in places]

    def signs(self, text: str) -> set[str]:
        """What the weights are fitted to: signs of the words, and of what the rules raise."""
        return self._found(text)[0]

    def _found(self, text: str) -> tuple[set[str], dict[str, Rule]]:
        """The signs of a text; the topics that the rules raise, each with the first rule that does."""
        if len(text) > 2 * LONGEST:
            text = f"{text[:LONGEST]}\n{text[-LONGEST:]}"
        words = split(text, self._spellings)
        read_as, figures = self._read(words)
        raised = self._raised([sentence for sentence in read_as.split("\n") if sentence])
        literal = [word for at, word in enumerate(words) if at not in figures]
        return signs(literal, self._concepts) | own_signs(raised.keys()), raised

    def _raised(self, sentences: Sequence[str]) -> dict[str, Rule]:
        apart = any(stands_in(self._cues.learning, one) or stands_in(self._cues.animals, one) for one in sentences)
        contexts = [read(sentence, self._cues, apart=apart) for sentence in sentences]
        raised: dict[int, Rule] = {}
        taken_back: set[int] = set()
        for rule in self._rules.candidates({sign for sentence in sentences for sign in sentence}):
            known = rule.topic in (taken_back if rule.kind == "unless" else raised)
            if not known and _matches(rule, sentences, contexts):
                if rule.kind == "unless":
                    taken_back.add(rule.topic)
                else:
                    raised[rule.topic] = rule
        return {self._topics[place][0]: raised[place] for place in sorted(raised) if place not in taken_back}

    def _read(self, words: Sequence[Word]) -> tuple[str, set[int]]:
        """The text as one character a word, figures of speech blotted out; and where those stood."""
        characters = []
        for at, word in enumerate(words):
            named = measures.name(words, at) if word.text[0].isdigit() or word.value is not None else ""
            known = f"<{named}>" if named else self._speller.word(word.text)
            characters.append(self._characters.get(known, OTHER))
        read_as = "".join(characters)
        figures: set[int] = set()
        for part in self._figurative.candidates(set(read_as)):
            for first, last in list(part.places(read_as)):
                figures.update(range(first, last))
                read_as = read_as[:first] + OTHER * (last - first) + read_as[last:]
        return read_as, figures


_CUES = tuple(Cues.__dataclass_fields__)
_KINDS = ("sure", "when", "even", "unless")
"""In the order in which they are tried."""


def stands_in(parts: Bank[Part], sentence: str) -> bool:
    """Whether any of the parts stands in a sentence."""
    return any(True for part in parts.candidates(set(sentence)) for _ in part.places(sentence))


def _matches(rule: Rule, sentences: Sequence[str], contexts: Sequence[Context]) -> bool:
    """Whether a rule matches outside denials and history and, unless its kind is `even`, general questions."""
    parts = rule.pattern.parts
    if rule.pattern.anywhere:
        return all(any(_live(part, rule, sentences, contexts)) for part in parts)
    return any(
        all(any(_live(part, rule, (sentence,), (context,))) for part in parts)
        for sentence, context in zip(sentences, contexts, strict=True)
    )


def _live(part: Part, rule: Rule, sentences: Sequence[str], contexts: Sequence[Context]) -> Iterator[bool]:
    for sentence, context in zip(sentences, contexts, strict=True):
        if rule.kind in ("even", "unless") or not context.general:
            for first, _ in part.places(sentence):
                if rule.kind == "unless" or first not in (context.denied if rule.firm else context.quiet):
                    yield True


@cache
def triage() -> Triage:
    """The rules that medmind carries."""
    folder = files(__package__)
    return Triage(
        tomllib.loads((folder / "lexicon.toml").read_text(encoding="utf-8")),
        tomllib.loads((folder / "rules.toml").read_text(encoding="utf-8")),
        json.loads((folder / "leaning.json").read_text(encoding="utf-8")),
    )
