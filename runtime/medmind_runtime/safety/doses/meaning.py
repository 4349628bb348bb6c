"""Whether a number with a unit is a dose's: food, people's weights and a laboratory's values have such units, too.

Knows the words near a unit. Knows not how a dose is put together; see `mentions`.
"""

from medmind_runtime.safety.doses import amounts
from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings
from medmind_runtime.safety.doses.terms import Unit

_OWN_WORDS = frozenset({"of", "ray", "energy"})
"""Kinds of units; see `terms.Unit`."""
_BEGINS = frozenset({"", ".", "\n"})
_LONGEST_UNIT = 3
"""Tokens."""


class Meaning(Surroundings):
    """Of the units in one text."""

    def means_dose(self, unit: Unit, first: int, end: int) -> bool:
        """Whether a number with a unit is one of a dose, here."""
        if unit.kind in _OWN_WORDS:
            return self._spread_or_given(unit, first, end)
        if self._of_laboratory(unit, end) or self._of_food(unit, first, end) or self._weighs(unit, first, end):
            return False
        texts, asked = self.texts, self.asked_to_take(first)
        if texts[end - 1] == "g" and self.row[end - 1].written == "G":
            return asked or self.drug_in_clause(first)
        if unit.kind == "weight":
            told = self.text(end + (self.text(end) == ",")) in self.known.beside.taking  # `under 50 kg take`
            return asked or (self.drug_ahead(end) and not told)
        if unit.kind == "soft":
            given_once = texts[end - 1] in self.known.unit_words.once
            once = given_once and (texts[end - 2] == "one" or texts[first - 1 : first] == ["in"])
            taking = self.in_clause(first, self.known.beside.taking)
            heap = self.asked and unit.spelt in self.known.unit_lists.heaped
            begun = self.asked and unit.spelt in self.known.unit_lists.dosed_alone and self.text(first - 1) in _BEGINS
            return not once and (asked or taking or heap or begun or self.drug_in_clause(first) or self.drug_far(first))
        return True

    def _spread_or_given(self, unit: Unit, first: int, end: int) -> bool:
        """Of a length, of radiation and of a shock: each has words of its own beside it."""
        if unit.kind == "of":
            return self._of_drug(first, end)
        if unit.kind == "energy":
            own = self.text(end) == "of" and not self.drug_ahead(end, 3)  # `300 joules of energy`
            return not own and not self._titled(end)
        near = [*self.clause_before(first), *self.texts[end : end + NEAR]]
        colour = self.texts[end - 1] in self.known.unit_words.colours or not self.ends(end)
        return not colour or not self.known.unit_words.radiation.isdisjoint(near)

    def _of_drug(self, first: int, end: int) -> bool:
        """`one inch of nitroglycerin ointment`, `a ribbon of erythromycin 1 cm long`."""
        beside, preparations = self.known.beside, self.known.preparations
        if self.asked and self.text(end - 1) in self.known.heaps and self.text(end) != "of":
            bodily = (
                self.text(end) in {"in", "on", "under"} and self.text(end + 1) in beside.own
            )  # `two lumps in her breast`
            return self.ends(end) and (not bodily or self.asked_to_take(first))
        place = self.past(end, beside.of_drug, 4)
        if self.text(end) == "of" and (
            any(map(self.is_drug, range(end + 1, place))) or self.text(place) in preparations.spread
        ):
            return True
        if self.text(first - 1 - (self.text(first - 1) in beside.set_apart)) in preparations.spread:
            return self.ends(end) and self.drug_in_reach(first)
        end += 2 * (self.texts[end : end + 2] == ["-", "long"])
        if not preparations.squeezed.isdisjoint(self.texts[end : end + 1]) and self.text(end + 1) == "of":
            place = self.past(end + 2, beside.of_drug, 4)
            return self.is_drug(place - 1) or self.text(place) in preparations.spread
        return self.in_clause(first, self.known.preparations.squeezed) and self.drug_in_clause(first)

    def _titled(self, end: int) -> bool:
        """`2005 J Clin Invest`."""
        return end < len(self.row) and self.row[end].is_word and self.row[end].written[:1].isupper()

    def dose_lately(self, at: int, *, drug: bool = False) -> bool:
        """Whether the last number before is a dose's; where there is none, whether a dose is asked about.

        Args:
            at: a place.
            drug: the name of what is surely a drug, nearer than any number, is enough; genes repeat adenine.
        """
        for place in range(at - 1, max(-1, at - 2 * NEAR), -1):
            if drug and self.known.is_surely_drug(self.texts[place]):
                return True
            if self.texts[place] == "one" or not amounts.is_number(self.row, place):
                continue
            end = self.past(place + 1, self.known.beside.modifiers | {"-"}, 3)
            found = self.unit_at(end) if end < at else None
            return found is not None and self.means_dose(found[0], place, end + found[1])
        return self.asked

    def dose_before(self, end: int) -> bool:
        """Whether a number with its unit, which is a dose's, ends here."""
        for place in range(end - 1, max(-1, end - _LONGEST_UNIT), -1):
            found = self.unit_at(place)
            if found and place + found[1] == end and place and amounts.is_number(self.row, place - 1):
                return found[0].kind in {"", "form"} and self.means_dose(found[0], place - 1, end)
        return False

    def _of_laboratory(self, unit: Unit, end: int) -> bool:
        """`126 mg/dL`."""
        rates, under = self.known.rates, self.over(end)
        traces = unit.spelt in rates.traces and under in rates.trace_volumes
        return traces or under in rates.laboratory or (unit.name == "ml" and self._filtered(end))

    def _filtered(self, end: int) -> bool:
        """`52 mL/min/1.73 m²`; without the area, if a word for it is nearer before than a drug's name."""
        rates = self.known.rates
        if self.over(end) not in rates.of["minute"]:
            return False
        if self.over(end + 2) in rates.skin:
            return True
        named = (text for text in self.clause_before(end) if text in rates.filtered or self.known.is_drug(text))
        return next(named, "") in rates.filtered

    def _of_food(self, unit: Unit, first: int, end: int) -> bool:
        """`8 cups of water`; with a drug beside, only what is no unit of mass or volume."""
        eating = self.known.eating
        substance = next((text for text in self.texts[end : end + 4] if text not in eating.of_what), "")
        if substance not in eating.no_medicine | eating.dishes:
            return self.texts[end : end + 1] != ["of"] and self._of_food_before(unit, first)
        return unit.kind != "" or not self.drug_in_clause(first)

    def _of_food_before(self, unit: Unit, first: int) -> bool:
        """`salt under 6 grams`, `2 litres of water, around eight glasses`; not `mix it with water, 6 grams`."""
        eating, beside = self.known.eating, self.known.beside
        foods = eating.eaten if unit.spelt in self.known.unit_lists.food else frozenset()
        foods = eating.drunk_in_units if unit.spelt == "unit" else foods
        if not foods or self.drug_in_clause(first):
            return False
        before = self.clause_before(first)
        if not (beside.taking - eating.drinking | self.known.often.objects).isdisjoint(before):
            return False
        between = beside.about | eating.food_between
        for place in range(first - 1, max(-1, first - NEAR), -1):
            if self.texts[place] in foods:
                return self.texts[place - 1 : place] == [] or self.texts[place - 1] not in eating.taken_with
            known = self.texts[place] in between or amounts.is_number(self.row, place) or self.unit_at(place)
            if not known or self.texts[place] in eating.taken_with:
                return False
        return False

    def over(self, at: int) -> str:
        """What stands under a unit."""
        if self.texts[at : at + 1] and self.texts[at] in self.known.rates.over and at + 1 < len(self.row):
            return self.texts[at + 1]
        return ""

    def _weighs(self, unit: Unit, first: int, end: int) -> bool:
        if unit.spelt not in self.known.unit_lists.weighed or (first and unit.kind == "" and self.is_drug(first - 1)):
            return False
        near = self.texts[max(0, first - 8) : first] + self.texts[end : end + 3]
        return any(text in self.known.unit_words.weighing for text in near)
