"""Whether a question tells of an emergency or of self-harm, decided by rules and a classifier before any model.

Knows the rules' file. The order of the topics in rules.toml is the order of urgency.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from medmind_runtime.interruption import never, unless
from medmind_runtime.safety import leaning, measures
from medmind_runtime.safety.classifier import alarm_odds, classifier
from medmind_runtime.safety.context import Context, Cues, read
from medmind_runtime.safety.letters import Letters
from medmind_runtime.safety.patterns import OTHER, Bank, Compiler, Part, Pattern
from medmind_runtime.safety.spelling import Speller
from medmind_runtime.safety.windows import APART, demand, sentences, windows
from medmind_runtime.safety.words import Word, plain, split

_SHORT = 2
"""Letters of what nobody shortens further by spelling it: "a m i" is no "MI"."""
_SAYS_WHO = frozenset(["i", "me", "my", "we", "our", "he", "she", "his", "her", "him"])
"""Words that tell of somebody's state: without them, what no rule knows raises no alarm within a long text."""


@dataclass(frozen=True)
class Rule:
    """One pattern of a topic.

    Attributes:
        topic: its place among the topics.
        pattern: what raises the alarm, or takes it back.
        kind: the key of rules.toml it stands under: `sure`, `asked`, `when`, `even`, `unless`.
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
        because: the pattern that matched; "leaning" where only the text as a whole tells it.
    """

    topic: str
    say: str
    because: str


class Triage:
    """The rules, compiled. Use `triage()`, which keeps them.

    Args:
        lexicon, rules: the contents of lexicon.toml and rules.toml.
        classify: of a plain text, log-probabilities of `classifier.KINDS`.
        bounds: see `leaning.Bounds`.

    Raises:
        ValueError: a rule names a list that there is not.
    """

    def __init__(
        self,
        lexicon: Mapping[str, Any],
        rules: Mapping[str, Any],
        classify: Callable[[str], Sequence[float]],
        bounds: leaning.Bounds = leaning.BOUNDS,
    ) -> None:
        lists: dict[str, list[str]] = {**lexicon["lists"], "counted_medicines": sorted(measures.COUNTED)}
        compiler = Compiler(lists, measures.NAMES, "small", "negations")
        banks = {name: Bank([compiler.part(phrase) for phrase in lists[name]]) for name in ("figurative", *_CUES)}
        self._figurative = banks.pop("figurative")
        self._cues = Cues(**banks)
        phrases: dict[str, str] = {}
        for name, phrase in rules["phrases"].items():
            phrases[name] = phrase.strip().format(**phrases)
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
        known, real = [word for word in self._characters if word.isalpha()], frozenset(lexicon["real_words"].split())
        self._speller = Speller(known, real)
        shortened = {
            typed for typed, words in self._spellings.items() if len(typed) > _SHORT and typed != words.replace(" ", "")
        }
        self._letters = Letters({*known, *real, *shortened})
        self._places = {name: place for place, (name, _) in enumerate(self._topics)}
        self._classify = classify
        self._bounds = bounds

    def alarms(self, text: str, cancel: Callable[[], bool] = never) -> list[Alarm]:
        """What the text tells of, most urgent first; empty for nearly every text.

        A long text is judged window by window (see `windows`): by a higher bound the more there are, but at its ends as
        if each stood alone. The sentences of a window that is not calm are judged one by one too, by a bound that is
        higher still: what stands around a cry may drown it.

        Args:
            text: as typed.
            cancel: asked before each window and sentence is judged.

        Raises:
            Interrupted: cancelled.
        """
        text = self._letters.joined(plain(text))
        words = split(text, self._spellings)
        if not any(len(word.text) > 1 and word.text.isalpha() for word in words):
            return []
        parts = windows(words)
        raised: dict[str, str] = {}
        more = demand(len(parts))
        for part in parts:
            unless(cancel)
            at_an_end = part.start == 0 or part.stop == len(words)
            window = words[part.start : part.stop]
            heard, calm = self._heard(text, window, 0 if at_an_end else more, anyway=len(parts) == 1)
            raised |= heard
            alone = [] if calm else list(sentences(window))
            for one in alone if len(alone) > 1 else ():
                unless(cancel)
                raised |= self._heard(text, window[one.start : one.stop], more + APART)[0]
        if len(raised) > 1:
            raised.pop(leaning.URGENT, None)
        places = sorted(self._places[topic] for topic in raised)
        said: dict[str, Alarm] = {}  # what two topics say alike is said once
        for topic, say in (self._topics[place] for place in places):
            said.setdefault(say, Alarm(topic, say, raised[topic]))
        return list(said.values())

    def _heard(
        self, text: str, words: Sequence[Word], more: float, *, anyway: bool = False
    ) -> tuple[dict[str, str], bool]:
        """Topics of a part of a text, each with what raised it; and whether the part is calm.

        Args:
            text: plain, the whole.
            words: of the part.
            more: see `leaning.heard`.
            anyway: also where no rule is raised and nobody is spoken of.
        """
        literal, raised = self._found(words)
        if not (anyway or raised or any(word.text in _SAYS_WHO for word in literal)):
            return {}, True
        said = self._classify(text[words[0].start : words[-1].end] if raised else _with_meaning(text, words))
        sure = {topic for topic, rule in raised.items() if rule.kind in _SURE}
        topics = leaning.heard(said, raised.keys(), sure, more, self._bounds)
        because = {topic: raised[topic].pattern.source if topic in raised else "leaning" for topic in topics}
        return because, not raised and alarm_odds(said) <= self._bounds.calm

    def _found(self, words: Sequence[Word]) -> tuple[list[Word], dict[str, Rule]]:
        """The words without figures of speech; the topics that the rules raise, each with the first rule that does."""
        read_as, figures = self._read(words)
        raised = self._raised([sentence for sentence in read_as.split("\n") if sentence])
        return [word for at, word in enumerate(words) if at not in figures], raised

    def _raised(self, sentences: Sequence[str]) -> dict[str, Rule]:
        contexts = read(sentences, self._cues)
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
_KINDS = ("sure", "asked", "when", "even", "unless")
_SURE = ("sure", "asked")
"""In the order in which they are tried."""


_NORMAL = " normal "
"""What the classifier reads for a temperature that is: it hears every such number as a fever. No more than that: a
person with a normal temperature may be in danger."""


def _with_meaning(text: str, words: Sequence[Word]) -> str:
    """The words' part of a text, with a normal temperature called so."""
    told, at = "", words[0].start
    for place, word in enumerate(words):
        if word.value is not None and measures.name(words, place) == measures.NORMAL_DEGREES:
            told += text[at : word.start] + _NORMAL
            at = word.end
    return told + text[at : words[-1].end]


def _matches(rule: Rule, sentences: Sequence[str], contexts: Sequence[Context]) -> bool:
    """Whether a rule matches outside denials, history, lessons and general questions, as far as its kind minds them."""
    parts = rule.pattern.parts
    if rule.pattern.anywhere:
        return all(any(_live(part, rule, sentences, contexts)) for part in parts)
    return any(
        all(any(_live(part, rule, (sentence,), (context,))) for part in parts)
        for sentence, context in zip(sentences, contexts, strict=True)
    )


def _live(part: Part, rule: Rule, sentences: Sequence[str], contexts: Sequence[Context]) -> Iterator[bool]:
    for sentence, context in zip(sentences, contexts, strict=True):
        silent = _silent(rule, context, len(sentence))
        for first, _ in part.places(sentence):
            if first not in silent:
                yield True


def _silent(rule: Rule, context: Context, length: int) -> Set[int]:
    """The places of a sentence of that length where a rule raises nothing.

    What is sure needs a lesson or a film to be what is spoken of. For the rest any word of one in the text is enough:
    the classifier can still hear what a rule does not.
    """
    quiet = context.denied if rule.firm else context.quiet
    match rule.kind:
        case "unless":
            return frozenset()
        case "even":
            return quiet
        case "when":
            all_of_it = context.general or context.beside
        case "sure":
            all_of_it = context.general
        case _:
            all_of_it = context.mishap
    return frozenset(range(length)) if all_of_it else quiet | context.apart


def _classified(text: str) -> Sequence[float]:
    """What medmind's own classifier says; loaded when first asked, after the prompt."""
    return classifier().log_probabilities(text)


def lexicon_and_rules() -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of lexicon.toml and rules.toml."""
    lexicon, rules = (
        tomllib.loads((files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))
        for name in ("lexicon", "rules")
    )
    return lexicon, rules


@cache
def triage() -> Triage:
    """With the rules and the classifier that medmind carries."""
    return Triage(*lexicon_and_rules(), _classified)
