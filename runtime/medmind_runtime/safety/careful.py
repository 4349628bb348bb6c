"""The guard of medmind-chat: emergencies before the answer, passages beside the question, doses and citations in it.

Puts together the rules, a library and the watch over doses; the conversation asks it through `medmind_runtime.guard`.

Emergencies are heard in the question and in every earlier turn that was answered elsewhere: a client may send a whole
conversation at once, in which a program asked "since when?" and nobody said what to do. They are heard until an answer
holds the first aid; of several such turns the latest counts, but one that tells of self-harm always does.
"""

import re
from collections.abc import Callable, Sequence

from medmind_runtime.engine.loading import DEFAULT_CONTEXT
from medmind_runtime.guard import Before
from medmind_runtime.interruption import never, unless
from medmind_runtime.library.index import Library
from medmind_runtime.library.question import take_apart
from medmind_runtime.safety.doses import DoseDocument, DoseWatch
from medmind_runtime.safety.triage import Alarm, triage
from medmind_runtime.safety.windows import ends
from medmind_runtime.turn import Passage, Turn

_NUMBER = r"\d+[\s.\u200b]*"
_CITATION = re.compile(
    rf"\[\s*\^?(?:(?:sources?|passages?|references?|refs?)\s+)?{_NUMBER}(?:(?:[,;&–-]|and)\s*{_NUMBER})*\]",
    re.IGNORECASE,
)
"""However a model writes it: `[1 and 3]`, `[Source 3]`, `[^3]`."""
_OPENED = re.compile(r"\[[^\[\]\n]{0,24}$")
"""At the end of what has come: it may become one."""
NOTHING = (
    "The library has nothing on this, so there is no answer rather than a guess. Ask it in other words, or ask a doctor "  # noqa: E501
    "or pharmacist."
)
UNNAMED = (
    "The question names no illness, medicine or other subject, so nothing was looked up. Name it in the question, as in: "  # noqa: E501
    "symptoms of asthma."
)
_SELF_HARM = "self_harm"
_ORDINARY = "My father has had chest pain since 1990 and takes 5 mg of warfarin. What are the symptoms of asthma?"
"""A question as people ask it, for what is read or compiled once."""
_CHARACTERS = 8
"""Of a token: no text of words has as many on average (English about four)."""


class Careful:
    """A guard; see `medmind_runtime.guard.Guard`.

    Args:
        library: where passages come from; None answers without sources.
        context: tokens that a model will hold; of a text that cannot fit, the ends alone are looked at.
    """

    def __init__(self, library: Library | None = None, *, context: int = DEFAULT_CONTEXT) -> None:
        self._library = library
        self._longest = context * _CHARACTERS
        self._triage = triage()

    def warm(self) -> None:
        """Make ready what the first question would wait for: rules and weights are read and compiled when needed."""
        self._triage.alarms(_ORDINARY)
        watch = self.watch(_ORDINARY, [])
        watch.feed(_ORDINARY)
        watch.finish()

    @property
    def instructions(self) -> str:
        """How to use passages, where there is a library."""
        if self._library is None:
            return ""
        return "Answer only from the numbered passages given with the question, and cite them as [1], [2]."

    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        """What to do now, in an emergency; then the passages."""
        question = ends(question, self._longest)
        shown = self._heard(question, cancel)
        shown += [alarm for alarm in self._unmet(earlier, cancel) if alarm.say not in {one.say for one in shown}]
        opening, rule = "\n\n".join(alarm.say for alarm in shown), ",".join(alarm.topic for alarm in shown)
        if self._library is None:
            return Before(opening, rule=rule)
        unless(cancel)
        asked = [ends(turn.question, self._longest) for turn in earlier]
        passages = self._library.find(question, earlier=asked)
        if not passages:
            nothing = UNNAMED if _names_none(question, asked) else self._nothing(question)
            return Before(opening or nothing, alone=True, rule=rule)  # first aid is enough by itself
        return Before(opening, passages=passages, rule=rule)

    def _heard(self, text: str, cancel: Callable[[], bool]) -> list[Alarm]:
        """The most urgent alarm of a text, and one of self-harm beside it."""
        return _first(self._triage.alarms(text, cancel))

    def _unmet(self, earlier: Sequence[Turn], cancel: Callable[[], bool]) -> list[Alarm]:
        """Alarms of turns from elsewhere whose first aid no answer since holds; as far back as a context reaches."""
        answers: list[str] = []
        found: dict[str, Alarm] = {}
        left = self._longest
        for turn in reversed(earlier):
            left -= len(turn.question)
            if left < 0:
                break
            answers.append(_unbroken(turn.answer))
            for alarm in () if turn.judged else self._heard(turn.question, cancel):
                if alarm.topic not in found and not any(_unbroken(alarm.say) in answer for answer in answers):
                    found[alarm.topic] = alarm
        return _first(list(found.values()))

    def _nothing(self, question: str) -> str:
        meant = self._library.meant(question) if self._library else []
        return f"{NOTHING} Did you mean: {', '.join(meant)}?" if meant else NOTHING

    def place(self, question: str, passages: Sequence[Passage]) -> str:
        """The passages, numbered, before the question."""
        if not passages:
            return question
        listed = "\n\n".join(f"[{number}] {passage.text}" for number, passage in enumerate(passages, 1))
        return f"{listed}\n\n{question}"

    def watch(self, question: str, passages: Sequence[Passage], *, document: bool = False) -> "AnswerWatch":
        """Watch doses and citations."""
        return AnswerWatch(question, passages, document=document)


def _names_none(question: str, earlier: Sequence[str]) -> bool:
    """Whether a question is of no subject, neither its own nor one that was spoken of."""
    asked = take_apart(question)
    return asked.unnamed and not (asked.refers and any(not take_apart(one).unnamed for one in earlier))


def _first(alarms: Sequence[Alarm]) -> list[Alarm]:
    """The first alarm, and one of self-harm beside it."""
    emergencies = [alarm for alarm in alarms if alarm.topic != _SELF_HARM]
    return emergencies[:1] + [alarm for alarm in alarms if alarm.topic == _SELF_HARM]


def _unbroken(text: str) -> str:
    """On one line: a client may keep an answer with other line ends."""
    return " ".join(text.split())


class AnswerWatch:
    """Holds back what may be a dose or a citation, a `document` to its end; names the sources behind an answer."""

    def __init__(self, question: str, passages: Sequence[Passage], *, document: bool = False) -> None:
        self._passages = passages
        texts = [passage.text for passage in passages]
        self._document = DoseDocument(texts, question, self._resolved) if document else None
        self._doses = self._document or DoseWatch(texts, question)
        self._held = ""

    @property
    def refusal(self) -> str:
        """See `medmind_runtime.guard.Watch`."""
        return self._document.refusal if self._document else ""

    def feed(self, text: str) -> str:
        """See `medmind_runtime.guard.Watch`."""
        self._held += self._doses.feed(text)
        opened = _OPENED.search(self._held)
        cut = opened.start() if opened else len(self._held)
        ready, self._held = self._held[:cut], self._held[cut:]
        return self._resolved(ready)

    def finish(self) -> str:
        """What was held back, then the sources."""
        ready, self._held = self._held + self._doses.finish(), ""
        return ready if self._document else self._resolved(ready) + self._sources()

    def _resolved(self, text: str) -> str:
        """Without citations of passages that were not given."""

        def kept(found: re.Match[str]) -> str:
            numbers = [int(number) for number in re.findall(r"\d+", found.group())]
            return "".join(f"[{number}]" for number in numbers if 1 <= number <= len(self._passages))

        return _CITATION.sub(kept, text)

    def _sources(self) -> str:
        lines = [f"[{n}] {p.source}{f', {p.url}' if p.url else ''}" for n, p in enumerate(self._passages, 1)]
        return "\n\nSources:\n" + "\n".join(lines) if lines else ""
