"""Doses that are taken one upon another: `400 mg plus 400 mg`, `400 mg and then 400 mg again`.

Knows the words between two doses and behind the last. Knows not how a dose is put together.
"""

from medmind_runtime.safety.doses.amounts import is_number
from medmind_runtime.safety.doses.drugs import stem
from medmind_runtime.safety.doses.meaning import Meaning

_BETWEEN, _BESIDE, _BEHIND = 12, 3, 7
"""Tokens between two doses; beside one, where its drug stands; behind the last, where its time stands."""


def link(around: Meaning, first: int, end: int) -> tuple[int, bool]:
    """The place of the number that is added to a dose, and whether words between say that it is; below zero for none.

    Args:
        around: the text.
        first, end: the dose.
    """
    summing, added = around.known.summing, False
    joined = again = False
    for at in range(end, min(len(around.row), end + _BETWEEN)):
        text = around.texts[at]
        if is_number(around.row, at):
            return (at, added) if joined and (again or "." not in around.texts[end:at]) else (-1, False)
        if text in summing.adding or (text == "to" and around.text(first - 1) in summing.verbs):
            added = joined = True
            again = again or text in summing.begins  # `10 mg. Straight after, 10 mg`
        elif text in summing.again:
            joined = again = True
        elif text in summing.joining:
            joined = True
        elif text not in summing.between | around.known.beside.taking and not around.is_drug(at):
            break
    return -1, False


def at_once(around: Meaning, first: int, begin: int, end: int, added: bool) -> bool:
    """Whether doses are taken together, and of one drug.

    Args:
        around: the text.
        first, begin: the first dose.
        end: that of the last.
        added: what stands between them says that they are one.
    """
    known, at = around.known, end
    places = [*range(max(0, first - _BESIDE), first), *range(begin, min(len(around.row), end + _BESIDE))]
    if len({stem(around.texts[place]) for place in places if around.is_drug(place)}) > 1:
        return False
    while around.text(at) in known.summing.behind or (at < len(around.row) and around.is_drug(at)):
        at += 1
    if around.phrase(known.at_once, at) or around.phrase(known.immediately, at):
        return True
    said = added or around.text(end) == "more" or not known.summing.again_at_once.isdisjoint(around.texts[begin:at])
    behind = around.texts[at : at + _BEHIND]
    behind = behind[: behind.index(".")] if "." in behind else behind
    timed = known.summing.timed | known.often.hours | known.often.minutes | known.beside.days | known.timing.when
    return said and timed.isdisjoint(behind)
