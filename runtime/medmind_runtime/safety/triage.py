"""Whether a question tells of an emergency or of self-harm, decided by rules and a classifier before any model.

Knows the rules' file.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from medmind_runtime.interruption import never, unless
from medmind_runtime.safety import leaning, measures
from medmind_runtime.safety.classifier import alarm_odds, classifier
from medmind_runtime.safety.context import Cues, of_things, read
from medmind_runtime.safety.letters import Letters
from medmind_runtime.safety.matching import RULE_KINDS, SURE, Rule, matches
from medmind_runtime.safety.patterns import OTHER, Bank, Compiler, Part
from medmind_runtime.safety.spelling import Speller
from medmind_runtime.safety.urgency import Urgency
from medmind_runtime.safety.windows import APART, demand, sentences, windows
from medmind_runtime.safety.words import Word, plain, split

_SHORT = 2
"""Letters of what nobody shortens further by spelling it: "a m i" is no "MI"."""
_SAYS_WHO = frozenset(["i", "me", "my", "we", "our", "he", "she", "his", "her", "him"])
"""Words that tell of somebody's state: without them, what no rule knows raises no alarm within a long text."""


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


@dataclass(frozen=True)
class Raised:
    """Why a part of a text raises a topic.

    Attributes:
        because: see `Alarm`.
        first: whether it comes before those that are not.
    """

    because: str
    first: bool


@dataclass(frozen=True)
class Plain:
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


class Triage:
    """The rules, compiled. Use `triage()`, which keeps them.

    Args:
        lexicon, rules: the contents of lexicon.toml and rules.toml.
        classify: of a plain text, log-probabilities of `classifier.KINDS`.
        bounds: see `leaning.Bounds`.

    Raises:
        ValueError: a rule names a list that there is not, or is of a kind that there is not; a word of `read_as` stands
            in no rule.
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
        self._one_word = Bank(
            [Plain(compiler.part(it), word) for word, all_ in lexicon["read_as"].items() for it in all_]
        )
        self._plain = Bank([Plain(compiler.part(it), said) for said, all_ in lexicon["plainly"].items() for it in all_])
        self._cues = Cues(**banks)
        phrases: dict[str, str] = {}
        for name, phrase in rules["phrases"].items():
            phrases[name] = phrase.strip().format(**phrases)
        self._topics = [(name, entry["say"].strip().format(**phrases)) for name, entry in rules["topic"].items()]
        for name, entry in rules["topic"].items():
            if unknown := entry.keys() - {"say", "firm", "passes", *RULE_KINDS}:
                raise ValueError(f"{name} has {', '.join(sorted(unknown))}: there is no such kind of rule")
        self._rules = Bank(
            [
                Rule(place, compiler.pattern(source), kind, entry.get("firm", False))
                for place, entry in enumerate(rules["topic"].values())
                for kind in RULE_KINDS
                for source in entry.get(kind, ())
            ]
        )
        self._characters = compiler.characters
        if unread := lexicon["read_as"].keys() - self._characters.keys():
            raise ValueError(f"no rule reads {', '.join(sorted(unread))}")
        self._spellings: dict[str, str] = lexicon["spellings"]
        known, real = [word for word in self._characters if word.isalpha()], frozenset(lexicon["real_words"].split())
        self._speller = Speller(known, real)
        shortened = {
            typed for typed, words in self._spellings.items() if len(typed) > _SHORT and typed != words.replace(" ", "")
        }
        self._letters = Letters({*known, *real, *shortened})
        passes = {name: entry.get("passes", ()) for name, entry in rules["topic"].items()}
        self._urgency = Urgency(list(passes), rules["life"], passes)
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
        if all(of_things(sentence, self._cues) for sentence in self._signs(words).split("\n") if sentence):
            return []
        parts = windows(words)
        raised: dict[str, Raised] = {}
        more = demand(len(parts))
        for part in parts:
            unless(cancel)
            at_an_end = part.start == 0 or part.stop == len(words)
            window = words[part.start : part.stop]
            heard, calm = self._heard(text, window, 0 if at_an_end else more, anyway=len(parts) == 1)
            _join(raised, heard)
            alone = [] if calm else list(sentences(window))
            for one in alone if len(alone) > 1 else ():
                unless(cancel)
                _join(raised, self._heard(text, window[one.start : one.stop], more + APART, alone=True)[0])
        if raised.keys() - {leaning.URGENT, leaning.SELF_HARM}:
            raised.pop(leaning.URGENT, None)
        says = dict(self._topics)
        said: dict[str, Alarm] = {}  # what two topics say alike is said once
        for topic in self._urgency.order(raised, {topic for topic, one in raised.items() if one.first}):
            say = says[topic]
            said.setdefault(say, Alarm(topic, say, raised[topic].because))
        return list(said.values())

    def _heard(
        self, text: str, words: Sequence[Word], more: float, *, anyway: bool = False, alone: bool = False
    ) -> tuple[dict[str, Raised], bool]:
        """Topics of a part of a text, each with what raised it; and whether the part is calm.

        Args:
            text: plain, the whole.
            words: of the part.
            more: see `leaning.heard`.
            anyway: also where no rule is raised and nobody is spoken of.
            alone: whether it is a sentence of a part that is judged too. Of what is `asked` only the whole part is
                sure: a lesson, an animal or an accident may stand in another sentence.
        """
        literal, raised, about, first = self._found(words)
        if not (anyway or raised or any(word.text in _SAYS_WHO for word in literal)):
            return {}, True
        said = self._classify(text[words[0].start : words[-1].end] if raised else self._plainly(text, words))
        sure = {topic for topic, rule in raised.items() if rule.kind in SURE and not (alone and rule.kind == "asked")}
        topics = leaning.heard(said, raised.keys(), sure, more, self._bounds)
        if leaning.URGENT in topics and about:  # only the whole told it: say which it may be
            topics = topics - {leaning.URGENT} | about.keys()
        because = {topic: rule.pattern.source for topic, rule in {**about, **raised}.items()}
        found = {topic: Raised(because.get(topic, "leaning"), topic in first) for topic in topics}
        return found, not raised and alarm_odds(said) <= self._bounds.calm

    def _found(self, words: Sequence[Word]) -> tuple[list[Word], dict[str, Rule], dict[str, Rule], set[str]]:
        """What a part of a text tells.

        Returns:
            Its words without figures of speech; topics that rules raise, others it may be about, each with its rule;
            and those of them that come first.
        """
        read_as, figures = self._read(words)
        known, first = self._matched([sentence for sentence in read_as.split("\n") if sentence])
        raised = {topic: rule for topic, rule in known.items() if rule.kind != "about"}
        about = {topic: rule for topic, rule in known.items() if rule.kind == "about"}
        return [word for at, word in enumerate(words) if at not in figures], raised, about, first

    def _matched(self, sentences: Sequence[str]) -> tuple[dict[str, Rule], set[str]]:
        """The topics of which a rule matches and none takes it back, each with the first that does; and which lead."""
        contexts = read(sentences, self._cues)
        raised: dict[int, Rule] = {}
        first: set[int] = set()
        taken_back: set[int] = set()
        for rule in self._rules.candidates({sign for sentence in sentences for sign in sentence}):
            known = rule.topic in {"unless": taken_back, "first": first}.get(rule.kind, raised)
            if not known and matches(rule, sentences, contexts):
                if rule.kind == "unless":
                    taken_back.add(rule.topic)
                else:
                    raised.setdefault(rule.topic, rule)
                if rule.kind == "first":
                    first.add(rule.topic)
        found = {self._topics[place][0]: raised[place] for place in sorted(raised) if place not in taken_back}
        return found, {self._topics[place][0] for place in first}

    def _read(self, words: Sequence[Word]) -> tuple[str, set[int]]:
        """The text as `_signs`, figures of speech blotted out; and where those stood."""
        read_as = self._signs(words)
        for one in self._one_word.candidates(set(read_as)):
            for first, last in list(one.part.places(read_as)):
                read_as = read_as[:first] + self._characters[one.said] * (last - first) + read_as[last:]
        figures: set[int] = set()
        for part in self._figurative.candidates(set(read_as)):
            for first, last in list(part.places(read_as)):
                figures.update(range(first, last))
                read_as = read_as[:first] + OTHER * (last - first) + read_as[last:]
        return read_as, figures

    def _signs(self, words: Sequence[Word]) -> str:
        """The text as one character a word."""
        signs = []
        for at, word in enumerate(words):
            named = measures.name(words, at) if word.text[0].isdigit() or word.value is not None else ""
            known = f"<{named}>" if named else self._speller.word(word.text)
            signs.append(self._characters.get(known, OTHER))
        return "".join(signs)

    def _plainly(self, text: str, words: Sequence[Word]) -> str:
        """The words' part of a text, in which what the classifier mishears is said plainly."""
        signs = self._signs(words)
        found = [
            (span, plain.said) for plain in self._plain.candidates(set(signs)) for span in plain.part.places(signs)
        ]
        told, at = "", words[0].start
        for (first, last), said in sorted(found, key=lambda one: (one[0][0], -one[0][1])):
            if words[first].start >= at:
                told += f"{text[at : words[first].start]} {said} "
                at = words[last - 1].end
        return told + text[at : words[-1].end]


_CUES = tuple(Cues.__dataclass_fields__)


def _join(raised: dict[str, Raised], more: Mapping[str, Raised]) -> None:
    """Add the topics of another part of a text."""
    for topic, one in more.items():
        raised[topic] = Raised(one.because, one.first or (topic in raised and raised[topic].first))


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
