"""Whether it is a drug that is taken so often, and not what is eaten, done or checked every hour.

Knows the words around how often. Knows not how that is said; see `often`.
"""

from collections.abc import Sequence

from medmind_runtime.safety.doses import amounts
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.surroundings import Surroundings

_BACK, _DRUG_BEFORE, _UNIT_BEFORE, _CHECKUP_AFTER = 12, 3, 4, 2
"""Tokens to look back for a verb of taking, for a drug, for a unit of dose; to look ahead for what is checked."""


class Taking(Surroundings):
    """Of the places in one text.

    Args:
        row, words, source, asked: see `Surroundings`.

    Attributes:
        told: the end of how often a drug is taken that was read last; 0 for none.
    """

    def __init__(self, row: Sequence[Token], words: list[str], *, source: bool, asked: bool) -> None:
        super().__init__(row, words, source=source, asked=asked)
        self.told = 0

    def of_taking(self, first: int, end: int) -> bool:
        """Whether it is a drug that is taken so often."""
        if self.object_before(first):
            return True
        if self._else_done(first):
            return False
        if self._goes_on(first):
            return True
        near = any(self.is_drug(place) for place in range(max(0, first - _DRUG_BEFORE), first)) or self._drug_led(first)
        while end < len(self.row) and self.texts[end] in self.known.beside.of_drug:
            end += 1
        near = near or (end < len(self.row) and self.is_drug(end))
        if near:
            return True
        measured = any(self.unit_at(place) for place in range(max(0, first - _UNIT_BEFORE), first))
        measured = measured and not any(map(self._of_food_at, range(max(1, first - _UNIT_BEFORE), first)))
        due = self.text(first - 1) == "at" and self.in_clause(first, self.known.often.due)
        again = self.text(first - 1) in self.known.multiplying.repeating  # `30 mg IV push, repeat q5min`
        taking = due or again or self.in_clause(first, self.known.beside.taking)
        taking = taking or (measured and self.in_clause(first, self.known.beside.changing))
        begins = self.text(first - 1 - (self.text(first - 1) == "on")) in {"", ".", "\n"}
        if self.asked and (measured or begins or due):
            return True
        return (measured and taking) or ((measured or taking) and (self.drug_in_clause(first) or self.drug_far(first)))

    def _goes_on(self, first: int) -> bool:
        """`every 6 hours or even every 2 hours`, `every 6 hours; in bad cases every 2 hours`: nothing else between."""
        return 0 < self.told <= first <= self.told + _BACK and all(map(self._says_no_more, range(self.told, first)))

    def _says_no_more(self, at: int) -> bool:
        """Whether a word tells only whom or when it is for."""
        often, known, text = self.known.often, self.known, self.texts[at]
        if text in often.else_done | often.checkups | often.happening or self._of_food_at(at):
            return False
        small = text in known.beside.plain or text in often.in_case or text in known.groups
        return small or (text != "\n" and not self.row[at].is_word) or self.is_drug(at)

    def _drug_led(self, first: int) -> bool:
        """`morphine as often as every hour`, `morphine round the clock, hourly`."""
        place = first - 1
        while place >= 0 and self.texts[place] in self.known.often_led:
            place -= 1
        return place >= 0 and self.is_drug(place)

    def _else_done(self, first: int) -> bool:
        """`people on lithium should drink with every meal`: what a verb without a drug behind it is of."""
        often, beside = self.known.often, self.known.beside
        for place in range(first - 1, max(-1, first - _BACK), -1):
            text = self.texts[place]
            if text in often.else_done:
                return True
            of_device = self.is_drug(place) and self.text(place + 1) in self.known.handling.things
            drug = self.is_drug(place) and not of_device  # `wash the salbutamol mouthpiece every week`
            if text in {".", "\n", ",", ":"} or text in beside.taking or drug or self.unit_at(place):
                return False
        return False

    def of_checkups(self, first: int, end: int) -> bool:
        """`The INR on warfarin is checked weekly`, `methotrexate needs a weekly blood test`."""
        checkups = self.known.often.checkups
        return not checkups.isdisjoint(self.texts[end : end + _CHECKUP_AFTER]) or (
            self.in_clause(first, checkups) and not self.object_before(first)
        )

    def _of_food_at(self, at: int) -> bool:
        """`a glass of water`, and not `with water` or `of body weight`."""
        known, text = self.known, self.texts[at]
        food = text in known.eating.no_medicine and text not in known.rates.body_weight
        return food and self.texts[at - 1] not in known.eating.taken_with

    def object_before(self, first: int) -> bool:
        """`take it`, `use the cream`, with small words between."""
        often, named = self.known.often, False
        for place in range(first - 1, max(-1, first - _BACK), -1):
            text = self.texts[place]
            if text in self.known.beside.taking:
                return named or self._passive(place) or self._to_take(place)
            if text in often.objects or self.is_drug(place):
                named = True
            elif text not in often.between and not amounts.is_number(self.row, place) and not self.unit_at(place):
                return False
        return False

    def _to_take(self, verb: int) -> bool:
        """`ibuprofen is harmless to take`."""
        if self.text(verb - 1) != "to":
            return False
        begin = verb - len(self.clause_before(verb))
        return any(self.is_drug(place) or self.texts[place] in self.known.often.objects for place in range(begin, verb))

    def _passive(self, verb: int) -> bool:
        """`it should be taken`."""
        beside, place = self.known.beside, verb - 1
        while place >= 0 and (
            self.texts[place].endswith("ly") or self.texts[place] in beside.plain - self.known.often.objects
        ):
            place -= 1
        return (
            place >= 0
            and (self.texts[place] in self.known.often.objects or self.is_drug(place))
            and not beside.passive.isdisjoint(self.texts[place:verb])
        )
