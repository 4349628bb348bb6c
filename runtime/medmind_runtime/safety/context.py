"""What a statement is about: something denied, long past, supposed, asked in general, or of a lesson, film or animal.

Such words raise no alarm. Knows sentences as texts of one character a word (see `patterns`). The words that show it
stand in lexicon.toml.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from medmind_runtime.safety.patterns import Bank, Compiler, Part

_REACH, _CLOSE = 6, 3
"""Words over which a negation carries; over which it does where only a plain denial counts."""


@dataclass(frozen=True)
class Cues:
    """The compiled lists of the lexicon that tell a context; named as there."""

    negation: Bank[Part]
    no_negation: Bank[Part]
    carries_on: Bank[Part]
    turn: Bank[Part]
    past: Bank[Part]
    present: Bank[Part]
    supposed: Bank[Part]
    asking: Bank[Part]
    impersonal: Bank[Part]
    personal: Bank[Part]
    learning: Bank[Part]
    animals: Bank[Part]
    shown: Bank[Part]
    figures: Bank[Part]
    mishaps: Bank[Part]
    stricken: Bank[Part]
    own: Bank[Part]
    own_turn: Bank[Part]
    of_things: Bank[Part]
    of_things_too: Bank[Part]
    clause_joins: Bank[Part]
    of_persons: Bank[Part]

    @classmethod
    def compiled(cls, compiler: Compiler) -> "Cues":
        """From the lexicon's lists."""
        return cls(**{cue.name: compiler.bank(cue.name) for cue in fields(cls)})


@dataclass(frozen=True)
class Context:
    """Of one sentence.

    Attributes:
        quiet: places of words that raise no alarm: denied, past or supposed.
        denied: those that are plainly denied, a few words after the negation.
        apart: places of words of a lesson, a film, a book or an animal.
        general: whether it asks about a matter and nobody's state.
        beside: whether any of the text is of a lesson, a film, a book or an animal, and nobody is hurt in the sentence.
        mishap: whether the text tells of what was swallowed by accident.
    """

    quiet: frozenset[int]
    denied: frozenset[int]
    apart: frozenset[int]
    general: bool
    beside: bool
    mishap: bool


def read(sentences: Sequence[str], cues: Cues) -> list[Context]:
    """The contexts of the sentences of a text."""
    framed = any(_taught(one, cues) or _stands(cues.animals, one) for one in sentences)
    shown = any(_stands(cues.shown, one) for one in sentences)
    mishap = any(_stands(cues.mishaps, one) for one in sentences)
    contexts = []
    told = False
    for sentence in sentences:
        quiet = _denied(sentence, cues, _REACH) | _past(sentence, cues) | _supposed(sentence, cues)
        denied = _denied(sentence, cues, _CLOSE)
        apart, told = _apart(sentence, cues, framed=framed, told=told)
        general = _general(sentence, cues)
        beside = (framed or shown) and not _hurt(0, len(sentence), sentence, cues)
        contexts.append(Context(frozenset(quiet), frozenset(denied), frozenset(apart), general, beside, mishap))
    return contexts


def of_things(sentence: str, cues: Cues) -> bool:
    """Whether a sentence tells of things and of nobody: each of its clauses begins with one, or goes on about it."""
    if not sentence or _stands(cues.of_persons, sentence):
        return False
    begins = {first for first, _ in _spans(cues.of_things, sentence)}
    goes_on = begins | {first for first, _ in _spans(cues.of_things_too, sentence)}
    return 0 in begins and all(end in goes_on for _, end in _spans(cues.clause_joins, sentence))


def _stands(parts: Bank[Part], sentence: str) -> bool:
    return any(True for part in parts.candidates(set(sentence)) for _ in part.places(sentence))


def _taught(sentence: str, cues: Cues) -> bool:
    """Whether a sentence says that it is of a lesson: "a nurse here" does, "no nurse here" does not."""
    taught = {first for first, _ in _spans(cues.learning, sentence)}
    return not taught <= _denied(sentence, cues, _CLOSE)


def _spans(parts: Bank[Part], sentence: str) -> list[tuple[int, int]]:
    return [span for part in parts.candidates(set(sentence)) for span in part.places(sentence)]


def _denied(sentence: str, cues: Cues, reach: int) -> set[int]:
    negations = _spans(cues.negation, sentence)
    if not negations:
        return set()
    false = {place for first, last in _spans(cues.no_negation, sentence) for place in range(first, last)}
    turns = {first for first, _ in _spans(cues.turn, sentence)}
    links = {first for first, _ in _spans(cues.carries_on, sentence)}
    denied: set[int] = set()
    for first, after in negations:
        last = after
        if first in false:
            continue
        end = last
        while end < min(last + reach, len(sentence)) and end not in turns:
            if sentence[end] == ",":
                # A list that is denied as a whole has an "or" to come: "no fever, cough or chest pain".
                if not any(end < link <= end + reach and not turns & set(range(end, link)) for link in links):
                    break
                last = end + 1  # the next item has the whole reach again
            end += 1
        denied |= set(range(first + 1, end))
    return denied


def _clauses(sentence: str, cues: Cues, more: Sequence[int] = ()) -> list[tuple[int, int]]:
    starts = sorted({0, *more, *(first for first, _ in _spans(cues.turn, sentence))})
    return list(zip(starts, [*starts[1:], len(sentence)], strict=True))


def _past(sentence: str, cues: Cues) -> set[int]:
    past = _spans(cues.past, sentence)
    if not past:
        return set()
    present = _spans(cues.present, sentence)
    quiet: set[int] = set()
    carried = False
    for start, end in _clauses(sentence, cues):
        own = [first for first, _ in past if start <= first < end]
        now = any(start <= first < end for first, _ in present)
        if (own or carried) and not now:
            quiet |= set(range(start, end))
        # "When I was a child, I had …": a time named first holds for what follows it.
        carried = bool(own) and min(own) - start <= 2 and not now and not carried
    return quiet


def _supposed(sentence: str, cues: Cues) -> set[int]:
    return {place for first, _ in _spans(cues.supposed, sentence) for place in range(first, len(sentence))}


def _apart(sentence: str, cues: Cues, *, framed: bool, told: bool) -> tuple[set[int], bool]:
    """Places of what is of a lesson, a film, a book or an animal; and whether it tells of what is shown.

    Who learns, writes or asks for an animal does so in the whole text (`framed`). A film or a course is as often just
    what somebody did that day: it holds for its own clause, goes on in clauses that tell of nobody of one's own, and
    in the next sentence (`told`) only where that tells of one of its figures.
    """
    if framed:
        return (set() if _hurt(0, len(sentence), sentence, cues) else set(range(len(sentence)))), False
    told = told and _stands(cues.figures, sentence)
    apart: set[int] = set()
    shown = told
    for start, end in _clauses(sentence, cues, [first for first, _ in _spans(cues.own_turn, sentence)]):
        clause = sentence[start:end]
        here = _stands(cues.shown, clause)
        shown = here or (shown and not _stands(cues.own, clause))
        told = told or here
        if shown and not _hurt(start, end, sentence, cues):
            apart |= set(range(start, end))
    return apart, told


def _hurt(start: int, end: int, sentence: str, cues: Cues) -> bool:
    """Whether a part of a sentence tells that somebody is ill or hurt, whatever it is of."""
    ignored = _ignored(sentence, cues)
    return any(start <= first < end and first not in ignored for first, _ in _spans(cues.stricken, sentence))


def _ignored(sentence: str, cues: Cues) -> set[int]:
    return {place for first, last in _spans(cues.impersonal, sentence) for place in range(first, last)}


def _general(sentence: str, cues: Cues) -> bool:
    ignored = _ignored(sentence, cues)
    if any(first not in ignored for first, _ in _spans(cues.personal, sentence)):
        return False
    return any(first <= 6 for first, _ in _spans(cues.asking, sentence))
