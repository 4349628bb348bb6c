"""Numbers of a drug without their unit: `ramipril from ten to five`, `sildenafil at fifty`, `week 1: 25, week 2: 50`.

Knows the words between a drug's name and a number. Knows no units, and not how a number is read.
"""

from medmind_runtime.safety.doses.drugs import stem
from medmind_runtime.safety.doses.surroundings import Surroundings

_NO_AGE = 120
"""`statins at 40` is an age; this is none any more."""


class Bare(Surroundings):
    """Of the places in one text; see `Surroundings`."""

    def of_drug_before(self, drug: int, first: int, following: list[str]) -> bool:
        """Whether a number without a unit is a drug's: `Ibuprofen: 800 every 6 hours`, and not `connexin 26`."""
        beside = self.known.beside
        if self.texts[first - 1] in beside.about - {":", "-", "("} or (following and following[0] in beside.goes_on):
            return False
        between = self.texts[drug + 1 : first]
        value = self.row[first].value
        if not between and value is not None and value.denominator > 1 and self.texts[drug] not in beside.measured:
            return True
        told = self.in_clause(first, beside.taking) or self.large(first) or self._schedule(first)
        return told and beside.equals.issuperset(between)

    def _schedule(self, first: int) -> bool:
        """`10-0-8-0`: so much at each time of the day."""
        return [self.row[at].value is not None for at in range(first, min(len(self.row), first + 5))] == [
            True,
            False,
            True,
            False,
            True,
        ] and {self.texts[at] for at in (first + 1, first + 3)} == {"-"}

    def bare(self, first: int, end: int) -> bool:
        """Whether words on both sides make a number a drug's dose."""
        return self.of_course(first, end) or self.changed(first, end) or self.fits(first, end)

    def _ends(self, end: int) -> bool:
        """Whether nothing follows that a number would count."""
        if end >= len(self.row):
            return True
        text = self.texts[end]
        return text not in self.known.beside.counted and (
            not self.row[end].is_word or text in self.known.beside.plain or text in self.known.often.abbreviated
        )

    def changed(self, first: int, end: int) -> bool:
        """`lower the ramipril from ten to five`, `quetiapine may be pushed from 50 to 300`."""
        beside = self.known.beside
        if self.texts[first - 1 : first] != ["from"] or not self._ends(end) or self.texts[end : end + 1] == ["%"]:
            return False
        if not any(text in beside.range_to for text in self.texts[first:end]):
            return False
        at = first - 2
        done = False
        while at >= 0 and (self.texts[at] in beside.changing or self.texts[at].endswith("ly")):
            done = done or self.texts[at] in beside.changing
            at -= 1
        if at < 0:
            return False
        if self.is_drug(at):
            return self.in_clause(at, beside.changing)
        if not done:
            return False
        passive = self.texts[at] in beside.passive
        while at >= 0 and not self.is_drug(at) and self.texts[at] in beside.plain:
            at -= 1
        return passive and at >= 0 and self.is_drug(at) and stem(self.texts[at]) != "vaccine"

    def fits(self, first: int, end: int) -> bool:
        """`sildenafil at fifty is typical`, `allopurinol at 300`; an age is none."""
        if self.texts[first - 1 : first] != ["at"] or first < 2 or not self.is_drug(first - 2):
            return False
        value = self.row[first].value
        if value is not None and value > _NO_AGE:
            return self._ends(end)
        following = self.texts[end : end + 2]
        fitting = following[:1] in (["is"], ["was"]) and self.known.beside.fitting.issuperset(following[1:])
        return (fitting and len(following) == 2) or self.known.often.abbreviated.issuperset(following[:1] or [""])

    def aged(self, first: int) -> bool:
        """`begin statins at 40`: of a kind of drugs it is the age."""
        value, kind = self.row[first].value, self.texts[first - 2] if first > 1 else ""
        small = value is not None and value <= _NO_AGE
        return small and self.texts[first - 1] == "at" and kind.endswith("s") and self.known.is_drug(kind[:-1])

    def of_course(self, first: int, end: int) -> bool:
        """`Sertraline: wk1 25, wk2 50`: so much in each week."""
        at = first - 1
        if at >= 0 and self.texts[at] in {":", "="}:
            at -= 1
        if at < 1 or self.row[at].value is None or self.texts[at - 1] not in self.known.beside.courses:
            return False
        return self._ends(end) and self.drug_in_clause(at)
