"""The unit in a table's head, for the numbers in the rows under it. Knows bars and ends of lines, no doses."""

from collections.abc import Sequence

from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import Unit, terms


class Table:
    """Of a stream, a word at a time.

    Attributes:
        unit: of the table that is open; None outside of one, or where its head has none.
    """

    def __init__(self) -> None:
        self.unit: Unit | None = None
        self._bars = self._any = False
        self._unit: Unit | None = None

    def take(self, row: Sequence[Token]) -> None:
        """The tokens of one more word, or the end of a line."""
        for place, token in enumerate(row):
            if token.text == "\n":
                if self._any:
                    self.unit = (self._unit or self.unit) if self._bars else None
                self._bars = self._any = False
                self._unit = None
                continue
            self._any = True
            self._bars = self._bars or token.text == "|"
            found = terms().unit([each.text for each in row[place : place + 3]], 0)
            if found and found[0].kind in {"", "form"} and not (place and row[place - 1].value is not None):
                self._unit = found[0]

    def ends(self, row: Sequence[Token]) -> bool:
        """Whether a word begins a line that belongs to the table no more."""
        return not self._any and bool(row) and row[0].text not in {"|", "\n"}
