"""What is taken on top of a dose without its unit: `four more at bedtime`, `then another every hour`; and `200mg200mg`.

Knows the words after such a number. Knows not how much was taken before.
"""

from medmind_runtime.safety.doses.amounts import is_number
from medmind_runtime.safety.doses.units import Units


def told(around: Units, first: int, end: int) -> bool:
    """`take four ibuprofen now and four more at bedtime`; not `for three more days`, `two more than`."""
    more = around.text(end) == "more" and around.text(end + 1) != "than" and around.ends(end + 1)
    return more and around.in_clause(first, around.known.beside.taking) and _drug_before(around, first)


def another_end(around: Units, at: int) -> int:
    """The end of the `another` of `one vial, then another every hour`; 0 for none."""
    known, following = around.known, around.text(at + 1)
    timed = following in known.often.every | known.often.hourly | known.summing.timed | {"at"}
    timed = timed or around.phrase(known.moments, at + 1) > 0
    if not timed or around.text(at - 1) not in known.summing.joining - {","} or not _drug_before(around, at):
        return 0
    pieces = filter(None, map(around.unit_at, range(at - len(around.clause_before(at)), at)))
    taken = around.in_clause(at, known.beside.taking) or any(unit.kind in {"", "form", "soft"} for unit, _ in pieces)
    return at + 1 if taken else 0


def glued_end(around: Units, end: int) -> int:
    """The end of `200mg200mg200mg`, whose first is over here; nobody writes a dose so."""
    while (
        end + 1 < len(around.row)
        and around.row[end].glued
        and around.row[end - 1].is_word
        and is_number(around.row, end)
        and (found := around.unit_at(end + 1))
    ):
        end += 1 + found[1]
    return end


def _drug_before(around: Units, at: int) -> bool:
    return any(map(around.known.is_drug, around.clause_before(at)))
