"""Multiples of a dose, where no number has a unit: `twice the usual dose`, `then double it`, `five times over`.

Knows the words around them. Knows not which dose is meant.
"""

from medmind_runtime.safety.doses.surroundings import Surroundings


class Multiples(Surroundings):
    """Of the places in one text; see `Surroundings`."""

    def multiple(self, at: int) -> int:
        """The end of `twice the usual dose`, if it begins here; 0 for none. Warned of it may be."""
        beside = self.known.beside
        if end := self._doubled(at):
            return end
        place = self.past(at + 1, beside.modifiers | beside.multiplied, 5)
        asked = self.asked_to_take(at)
        ends = place < len(self.row) and self.texts[place] in beside.amounts
        vague = self.texts[place - 1] in beside.much
        if not ends and not (vague and (asked or self.drug_in_clause(at))):
            return 0
        if self.denied(at) or (self.texts[at + 1 : at + 2] in (["dose"], ["doses"], ["a"]) and not asked):
            return 0
        return place + 1 if ends else place

    def _doubled(self, at: int) -> int:
        """The end of `then double it`, `take double`, `three times what you took`, `five times over`; 0 for none."""
        beside = self.known.beside
        following = self.texts[at + 1 : at + 3]
        text = following[0] if following else "."
        doubling, fold = self.texts[at] in beside.doubling, self.texts[at] in beside.fold
        asked, drug = self.asked_to_take(at - fold), self.drug_in_clause(at)  # before `three times`
        again = self.in_clause(at, beside.repeating) and self.in_clause(at, beside.amounts)
        what = next((step for step, word in enumerate(following, 2) if word in beside.what), 0)
        size = 0
        if asked and what:
            size = what
        elif (asked or drug) and following == ["as", "often"] and not self._of_others(at + 3):
            size = 3
        elif (doubling and drug and text in beside.doubled) or (fold and (asked or drug) and text in beside.over):
            size = 2
        elif (doubling and asked and text in beside.then) or (fold and again):
            size = 1
        return at + size if size and not self.denied(at) else 0

    def _of_others(self, at: int) -> bool:
        """Whether `twice as often` goes on with `as females`."""
        following = self.texts[at : at + 2]
        return len(following) == 2 and following[0] == "as" and following[1] not in self.known.beside.taker

    def past(self, at: int, words: frozenset[str], most: int) -> int:
        """The place after some of these words, and after drugs' names."""
        place = at
        while place < len(self.row) and place < at + most and (self.texts[place] in words or self.is_drug(place)):
            place += 1
        return place
