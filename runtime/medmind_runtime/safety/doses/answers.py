"""Numbers without a unit or a drug beside them, in an answer about one: `Six.`, `You can have six`, `her husband 10`.

Knows the rest of their sentence. Knows not which drug is meant.
"""

from medmind_runtime.safety.doses import steps
from medmind_runtime.safety.doses.amounts import LARGE, is_number, is_year
from medmind_runtime.safety.doses.meaning import Meaning
from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings

_FARTHEST = 160
"""Tokens of a row of numbers and small words that is followed back to the question; a longer one answers none."""


def told(around: Meaning, first: int, end: int) -> bool:
    """Whether the rest of a sentence makes a number a dose."""
    if around.texts[first:end] == ["one"]:
        return False
    if around.source:
        return _answers(around, first, end) or _together(around, first, end)
    if around.text(first - 1) == "on":
        return _on(around, first, end) or _also(around, first, end)
    return any(way(around, first, end) for way in (_answers, _had, _also, _together))


def _had(around: Surroundings, first: int, end: int) -> bool:
    """`You can have six`, `have four of them`."""
    beside = around.known.beside
    at = _back(around, first, beside.about)
    if around.text(at) not in beside.having:
        return False
    allowed = around.text(at - 1) in beside.allowing | {"", "\n", "."}
    return allowed and _alone(around, end) and around.drug_named(first)


def _answers(around: Meaning, first: int, end: int) -> bool:
    """`Six.`, `About 400, I would say.`, `400 is fine for you`, where a dose is asked about."""
    beside, answering = around.known.beside, around.known.answering
    if _numbers_a_line(around, first, end) or _year(around, first):
        return False
    at = _back(around, first, around.known.before_answer)
    while at >= max(0, first - _FARTHEST) and is_number(around.row, at):
        at = _back(around, at, around.known.before_answer)
    if not (around.asked or around.asked_before(at)):
        return False
    fits = around.text(end) in beside.being and not beside.fitting.isdisjoint(around.texts[end + 1 : end + 3])
    fits = fits and not steps.counts_on(around, first)
    following = end + 1 < len(around.row) and is_number(around.row, end + 1)  # `two in five`
    goes_on = around.text(end) in answering.after_answer and not following
    return around.text(at) in {"", ".", "\n"} and (fits or goes_on or _alone(around, end))


def _together(around: Surroundings, first: int, end: int) -> bool:
    """`Six at a time.`, `Eight a day.`: a sentence, or a part of one, that begins so after a drug's name."""
    beside, rates, answering = around.known.beside, around.known.rates, around.known.answering
    at = _back(around, first, beside.about - beside.set_apart)
    if around.text(at) in beside.pointing and around.text(at - 1) in beside.taking:  # `take it six at a time`
        at = _back(around, at - 1, beside.allowing)
    if around.text(at) not in beside.set_apart | {"", ".", "\n"} or not around.drug_in_reach(first):
        return False
    kind = around.past(end, beside.modifiers | {",", "-"}, 4)  # `8 extra-strength at a time`
    after = around.phrase(around.known.at_once, kind)
    daily = around.text(end) in rates.per and around.text(end + 1) in around.known.often.days
    after = after or (end + 2 if daily and around.text(at) not in beside.set_apart else 0)
    return after > 0 and (around.text(after) in beside.being | answering.after_amount or _alone(around, after))


def _numbers_a_line(around: Surroundings, first: int, end: int) -> bool:
    """`There are three. 1. Nausea. 2. Gas.`, `(2) swelling`."""
    if around.text(first - 1) == "(" and around.text(end) == ")":
        return True
    value = around.row[first].value
    digits = value is not None and value < LARGE and around.text(end) in {".", ")"}
    return digits and around.text(first - 1) in {".", "\n", ":"} and end + 1 < len(around.row)


def _year(around: Surroundings, first: int) -> bool:
    """`From 2004 to 2013`; 2000 may be milligrams."""
    value = around.row[first].value
    return value is not None and is_year(value) and value % 100 != 0


def _on(around: Surroundings, first: int, end: int) -> bool:
    """`Most people are on 20`, `start him on 2.5`, where a drug was named or follows."""
    beside = around.known.beside
    if around.text(first - 1) != "on" or not _alone(around, end):
        return False
    put = around.text(first - 2) in beside.passive or around.in_clause(first, beside.starting | beside.putting)
    return put and (around.drug_named(first) or around.drug_near(end))


def _also(around: Surroundings, first: int, end: int) -> bool:
    """`She took 5 mg of amlodipine, her husband 10`: another person's, with the verb left out."""
    beside, answering = around.known.beside, around.known.answering
    verb = around.text(first - 1)
    person = first - 1 - (verb == "on" or verb in beside.taking)
    whose = person - 1 - (around.text(person - 1) not in answering.whose)
    if around.text(whose) not in answering.whose or not around.row[person].is_word or not _alone(around, end):
        return False
    before = range(max(0, whose - NEAR), whose)
    numbers = any(is_number(around.row, at) for at in before)
    took = around.in_clause(whose, beside.taking) or "on" in around.texts[before.start : whose]
    return numbers and took and around.drug_named(whose)


def _back(around: Surroundings, at: int, words: frozenset[str]) -> int:
    """The place before some of these words."""
    at, least = at - 1, max(0, at - _FARTHEST)
    while at >= least and around.texts[at] in words:
        at -= 1
    return at


def _alone(around: Surroundings, end: int) -> bool:
    """Whether a number counts nothing that follows."""
    unit_words, answering, beside = around.known.unit_words, around.known.answering, around.known.beside
    at = end + 2 if around.text(end) == "of" and around.text(end + 1) in unit_words.of_it else end
    if at >= len(around.row) or around.texts[at] in answering.after_amount:
        return True
    following = around.row[at]
    name = following.value is not None or (
        following.text == "," and at + 1 < len(around.row) and around.row[at + 1].glued
    )
    return not name and not following.is_word and following.text not in beside.counted | {"-", "/", ":"}
