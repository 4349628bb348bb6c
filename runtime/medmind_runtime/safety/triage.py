"""Whether a question tells of an emergency or of self-harm, decided by rules and a classifier before any model.

Knows how a text is judged: as a whole, in windows, and sentence by sentence. signs.py reads it, matching.py finds the
rules that match, leaning.py tells how far it leans.
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
from medmind_runtime.safety.matching import SURE, matched
from medmind_runtime.safety.patterns import Compiler
from medmind_runtime.safety.rulebook import Rulebook
from medmind_runtime.safety.signs import Reader, Text
from medmind_runtime.safety.windows import APART, demand, sentences, windows

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


class Triage:
    """The rules, compiled. Use `triage()`, which keeps them.

    Args:
        lexicon, rules: the contents of lexicon.toml and rules.toml.
        classify: of a plain text, log-probabilities of `classifier.KINDS`.
        bounds: see `leaning.Bounds`.

    Attributes:
        rulebook, reader: what it judges by, and what reads a text for it.

    Raises:
        ValueError: see `Rulebook` and `Reader`.
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
        self._cues = Cues.compiled(compiler)
        self.rulebook = Rulebook(rules, compiler)
        self.reader = Reader(lexicon, compiler)
        self._says_who = frozenset(compiler.characters[word] for word in _SAYS_WHO)
        self._classify = classify
        self._bounds = bounds

    def alarms(self, typed: str, cancel: Callable[[], bool] = never) -> list[Alarm]:
        """What the text tells of, most urgent first; empty for nearly every text.

        A long text is judged window by window (see `windows`): by a higher bound the more there are, but at its ends as
        if each stood alone. The sentences of a window that is not calm are judged one by one too, by a bound that is
        higher still: what stands around a cry may drown it.

        Args:
            typed: the text as typed.
            cancel: asked before each window and sentence is judged.

        Raises:
            Interrupted: cancelled.
        """
        text = self.reader.read(typed)
        if not any(len(word.text) > 1 and word.text.isalpha() for word in text.words):
            return []
        if all(of_things(sentence, self._cues) for sentence in _sentences(text.signs)):
            return []
        parts = windows(text.words)
        raised: dict[str, Raised] = {}
        more = demand(len(parts))
        for part in parts:
            unless(cancel)
            at_an_end = part.start == 0 or part.stop == len(text.words)
            window = text.part(part)
            heard, calm = self._heard(window, 0 if at_an_end else more, anyway=len(parts) == 1)
            _join(raised, heard)
            alone = [] if calm else list(sentences(window.words))
            for one in alone if len(alone) > 1 else ():
                unless(cancel)
                _join(raised, self._heard(window.part(one), more + APART, alone=True)[0])
        if raised.keys() - {leaning.URGENT, leaning.SELF_HARM}:
            raised.pop(leaning.URGENT, None)
        said: dict[str, Alarm] = {}  # what two topics say alike is said once
        for topic in self.rulebook.urgency.order(raised, {topic for topic, one in raised.items() if one.first}):
            say = self.rulebook.says[topic]
            said.setdefault(say, Alarm(topic, say, raised[topic].because))
        return list(said.values())

    def _heard(
        self, text: Text, more: float, *, anyway: bool = False, alone: bool = False
    ) -> tuple[dict[str, Raised], bool]:
        """Topics of a part of a text, each with what raised it; and whether the part is calm.

        Args:
            text: the part.
            more: see `leaning.heard`.
            anyway: also where no rule is raised and nobody is spoken of.
            alone: whether it is a sentence of a part that is judged too. Of what is `asked` only the whole part is
                sure: a lesson, an animal or an accident may stand in another sentence.
        """
        literal = self.reader.literal(text.signs)
        parted = _sentences(literal)
        found = matched(self.rulebook.rules, parted, read(parted, self._cues))
        if not (anyway or found.raised or not self._says_who.isdisjoint(literal)):
            return {}, True
        said = self._classify(text.written if found.raised else self.reader.plainly(text))
        sure = {topic for topic, rule in found.raised.items() if rule.kind in SURE}
        if alone:
            sure -= {topic for topic, rule in found.raised.items() if rule.kind == "asked"}
        topics = leaning.heard(said, found.raised.keys(), sure, more, self._bounds)
        if found.raised and leaning.SELF_HARM in topics - found.raised.keys():  # advice alone may have told it
            unadvised = self._classify(self.reader.unadvised(text))
            topics &= leaning.heard(unadvised, found.raised.keys(), sure, more, self._bounds) | found.raised.keys()
        if leaning.URGENT in topics and found.about:  # only the whole told it: say which it may be
            topics = topics - {leaning.URGENT} | found.about.keys()
        because = {topic: rule.pattern.source for topic, rule in {**found.about, **found.raised}.items()}
        heard = {topic: Raised(because.get(topic, "leaning"), topic in found.first) for topic in topics}
        return heard, not found.raised and alarm_odds(said) <= self._bounds.calm


def _sentences(signs: str) -> list[str]:
    return [sentence for sentence in signs.split("\n") if sentence]


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
