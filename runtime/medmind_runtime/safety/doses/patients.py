"""Whom a question asks about: `I am 82`, `my grandson`, `she is expecting`; not `I have two children`.

Knows the words around a group or an age in a question. Knows no doses.
"""

from collections.abc import Sequence

from medmind_runtime.safety.doses import groups
from medmind_runtime.safety.doses.amounts import is_number, read
from medmind_runtime.safety.doses.groups import Ages, Group, Groups
from medmind_runtime.safety.doses.reading import Token, text_at
from medmind_runtime.safety.doses.terms import terms

_YOUNG = frozenset({"baby", "child", "teen"})
_PARENTS = frozenset({"mother", "father", "mum", "mom", "dad", "parent"})
_BACK, _OLDEST, _MONTHS = 4, 120, 24
"""Tokens to look back for who it is; the most years; months, weeks or days that a baby has."""


def named(row: Sequence[Token]) -> Groups:
    """The groups of those whom a question asks about."""
    made: set[Group] = set()
    begin = at = 0
    while at < len(row):
        if is_number(row, at):
            end = read(row, at).end
            if found := _age(row, at, end):
                beside = max(begin, at - _BACK - 1)
                made |= found | groups.named(row, begin, beside) | (groups.named(row, beside, at) - _YOUNG)
                begin = at = end
                continue
            at = max(at, end - 1)
        elif _expects(row, at) or _along(row, at):
            made.add("pregnant")
        elif _left_out(row, at):
            made |= groups.named(row, begin, at)
            begin = at + 1
        at += 1
    return frozenset(made) | groups.named(row, begin, len(row))


def _age(row: Sequence[Token], at: int, end: int) -> set[Group]:
    """Of `I am 82`, `my little one is 3`, `my nephew, he is 5`."""
    asking = terms().asking
    if text_at(row, at - 1) in asking.being:
        people = asking.people | terms().groups.keys()
        who = next((text for text in (text_at(row, at - 2), text_at(row, at - 3)) if text not in asking.still), "")
        if who not in people:
            return set()
    elif text_at(row, at - 1) not in asking.person_is:
        return set()
    values, unit = read(row, at).values, text_at(row, end)
    ends = not unit or unit in asking.after_age
    years = ends or unit in {"year", "years", "yr", "yrs", "yo"}
    if not years or len(values) != 1 or not 0 < values[0] <= _OLDEST:
        months = unit in terms().grown.lived and not years and text_at(row, end + 1) in asking.after_age | {"", "old"}
        return {"baby"} if months and len(values) == 1 and values[0] < _MONTHS else set()
    return {Ages(values[0], values[0] + 1)}


def _expects(row: Sequence[Token], at: int) -> bool:
    """`my wife is expecting`, `I'm nursing`; not `I am expecting results`."""
    asking = terms().asking
    if row[at].text not in asking.expecting:
        return False
    lead = at - 1 - (text_at(row, at - 1) in asking.still)
    if text_at(row, lead) not in asking.being | asking.person_is | {"while", "when"}:
        return False
    following = text_at(row, at + 1)
    of_baby = following in {"a", "my", "our", "her"} and terms().groups.get(text_at(row, at + 2)) in {"baby", "child"}
    return of_baby or not following or following in asking.after_age


def _along(row: Sequence[Token], at: int) -> bool:
    """`30 weeks along`."""
    return row[at].text in {"along", "gone"} and text_at(row, at - 1) in {"weeks", "months", "week", "month"}


def _left_out(row: Sequence[Token], at: int) -> bool:
    """Whether a child is no patient: `I have two children and`, `after my baby was born`, `mother of two boys`."""
    asking, known = terms().asking, terms()
    if known.groups.get(row[at].text) not in _YOUNG:
        return False
    if text_at(row, at + 1) in {"was", "were"} and text_at(row, at + 2) == "born":
        return True
    place = at - 1
    while place > at - _BACK and place >= 0 and (text_at(row, place) in asking.between or is_number(row, place)):
        place -= 1
    has = text_at(row, place) in asking.having and text_at(row, at + 1) in asking.after_child
    return has or (text_at(row, place) == "of" and text_at(row, place - 1) in _PARENTS)
