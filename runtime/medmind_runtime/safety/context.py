"""What a statement is about: something denied, long past, supposed, or asked in general; such words raise no alarm.

Knows sentences as texts of one character a word (see `patterns`). The words that show it stand in lexicon.toml.
"""

from dataclasses import dataclass

from medmind_runtime.safety.patterns import Bank, Part

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
    stricken: Bank[Part]


@dataclass(frozen=True)
class Context:
    """Of one sentence.

    Attributes:
        quiet: places of words that raise no alarm: denied, past or supposed.
        denied: those that are plainly denied, a few words after the negation.
        general: whether it asks about a matter and nobody's state.
    """

    quiet: frozenset[int]
    denied: frozenset[int]
    general: bool


def read(sentence: str, cues: Cues, *, apart: bool) -> Context:
    """The context of a sentence; `apart`: the text around it is of lessons, films, books or animals."""
    quiet = _denied(sentence, cues, _REACH) | _past(sentence, cues) | _supposed(sentence, cues)
    return Context(frozenset(quiet), frozenset(_denied(sentence, cues, _CLOSE)), _general(sentence, cues, apart))


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


def _clauses(sentence: str, cues: Cues) -> list[tuple[int, int]]:
    starts = sorted({0, *(first for first, _ in _spans(cues.turn, sentence))})
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


def _general(sentence: str, cues: Cues, apart: bool) -> bool:
    ignored = {place for first, last in _spans(cues.impersonal, sentence) for place in range(first, last)}
    marks = cues.stricken if apart else cues.personal
    if any(first not in ignored for first, _ in _spans(marks, sentence)):
        return False
    return apart or any(first <= 6 for first, _ in _spans(cues.asking, sentence))
