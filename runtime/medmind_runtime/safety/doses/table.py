"""The unit in a table's head, for the numbers in the rows under it. Knows bars and ends of lines, no doses."""

from collections.abc import Sequence

from medmind_runtime.safety.doses.drugs import is_drug
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import COUNT, Unit, terms


class Table:
    """Of a stream, a word at a time.

    Attributes:
        unit: of the table that is open; None outside of one, or where its head has none.
    """

    def __init__(self) -> None:
        self.unit: Unit | None = None
        self._bars = self._any = self._begun = False
        self._unit: Unit | None = None

    def take(self, row: Sequence[Token]) -> None:
        """The tokens of one more word, or the end of a line."""
        for place, token in enumerate(row):
            if token.text == "\n":
                if self._any:
                    self.unit = (self._unit or self.unit) if self._bars else None
                    self._begun = self._bars
                self._bars = self._any = False
                self._unit = None
                continue
            self._any = True
            self._bars = self._bars or token.text == "|"
            found = terms().unit([each.text for each in row[place : place + 3]], 0)
            if found and found[0].kind in {"", "form"}:
                before = row[place - 1] if place else token
                if before.value is None and before.text not in terms().rates.over:
                    self._unit = None if _of_laboratory(row[place + found[1] :]) else found[0]
            elif self._bars and self._unit is None and self._heads(token):
                self._unit = COUNT

    def _heads(self, token: Token) -> bool:
        """Whether numbers under a word are doses."""
        return token.text in terms().keys.heads or (not self._begun and is_drug(token))

    def ends(self, row: Sequence[Token]) -> bool:
        """Whether a word begins a line that belongs to the table no more."""
        return not self._any and bool(row) and row[0].text not in {"|", "\n"}


def _of_laboratory(row: Sequence[Token]) -> bool:
    """Whether a unit goes on as `/dL`."""
    over = [token.text for token in row[:2]]
    return len(over) == 2 and over[0] in terms().rates.over and over[1] in terms().rates.laboratory
