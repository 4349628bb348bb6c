"""What stands around a number: units, rates, verbs of taking, drugs, questions.

Knows the words near a place of a text. Knows not what makes a number with a unit a dose's; see `meaning`.
"""

from collections.abc import Sequence

from medmind_runtime.safety.doses import amounts
from medmind_runtime.safety.doses.drugs import is_drug
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import Unit, terms

NEAR = 12
"""Tokens before a number that may say what it is of."""
_FAR = 80
"""Tokens before a number in which a drug may be named, in a passage and where the answer speaks of one."""


class Surroundings:
    """Of the places in one text.

    Args:
        row: its tokens.
        words: the same in lower case, but for units in capitals.
        source: it is a passage, in which a drug may be named some sentences before its dose.
        asked: a drug's dose is asked about.
    """

    def __init__(self, row: Sequence[Token], words: list[str], *, source: bool = False, asked: bool = False) -> None:
        self.source, self.asked = source, asked
        self.row, self.words = row, words
        self.texts = [token.text for token in row]
        self._size = len(self.texts)
        self.known = terms()

    def text(self, at: int) -> str:
        """The token there; empty outside of the text."""
        return self.texts[at] if 0 <= at < self._size else ""

    def rates(self, at: int) -> tuple[int, frozenset[str]]:
        """What a dose is meant for, from `mg/kg` to `daily`; and where that ends."""
        named = self.known.rates
        made: set[str] = set()
        while at < len(self.row):
            if self.texts[at] in named.alone:
                word, size = self.texts[at], 1
            elif at + 1 < len(self.row) and (
                self.texts[at] in named.per or (self.texts[at] in named.within and self.day_of_hours(at + 1))
            ):
                word, size = self.texts[at + 1], 2
            else:
                break
            rate = next((name for name, words in named.of.items() if word in words), "")
            if hours := self.day_of_hours(at + 1):
                rate, size = "day", hours - at
            if word == "m" and self.texts[at + 2 : at + 3] in (["²"], ["2"]):
                rate, size = "m2", 3
            if not rate:
                break
            made.add(rate)
            at += size
            while rate == "kg" and at < len(self.row) and self.texts[at] in named.body_weight:
                at += 1
        return at, frozenset(made)

    def unit_at(self, at: int) -> tuple[Unit, int] | None:
        """The unit that begins here, and how many tokens it takes."""
        word = self.words[at]
        if word in self.known.capitals:
            if word == "U" and self.texts[at + 1 : at + 2] == ["."]:
                following = self.words[at + 2 : at + 3]
                if following in (["s"], ["S"]):
                    return None
            return self.known.by_name[self.known.capitals[word]], 1
        if self.texts[at + 1 : at + 2] == ["-"]:
            found = self.known.unit([self.texts[at], *self.texts[at + 2 : at + 4]], 0)
            return (found[0], found[1] + (found[1] > 1)) if found else None  # `milli-grams` is three tokens
        found = self.known.unit(self.texts[at : at + 3], 0)
        cold = (
            found is not None and found[0].spelt == "packet" and self.text(at - 1) in self.known.unit_words.cold_packs
        )
        return None if cold else found

    def day_of_hours(self, at: int) -> int:
        """The end of `24 hours` or `any 24-hour period`, if it begins here; 0 for none."""
        at += self.text(at) in self.known.rates.any
        if self.text(at) != "24":
            return 0
        at += 1 + (self.text(at + 1) == "-")
        hours = self.text(at) in self.known.often.hours
        return at + 1 + (self.text(at + 1) in self.known.rates.period) if hours else 0

    def large(self, at: int) -> bool:
        """Whether a number is none that names a kind: `connexin 26`."""
        value = self.row[at].value
        return value is None or value >= amounts.LARGE or value < 1

    def numbered_unit(self, at: int) -> bool:
        """Whether a number stands before a unit already."""
        return any(amounts.is_number(self.row, place) for place in range(max(0, at - 2), at))

    def denied(self, at: int) -> bool:
        """Whether a negation stands before; `it does no harm to` is none."""
        words, known = self.clause_before(at), self.known
        if known.negations.isdisjoint(words):
            return False
        words = words[: words.index(",") if "," in words else None]
        denied = (place for place, text in enumerate(words) if text in known.negations)
        return any(known.beside.harming.isdisjoint(words[max(0, place - 2) : place]) for place in denied)

    def clause_before(self, at: int) -> list[str]:
        """The words of the clause before a place, the nearest first."""
        made: list[str] = []
        for place in range(at - 1, max(-1, at - NEAR), -1):
            if self.texts[place] in {".", "\n"}:
                break
            made.append(self.texts[place])
        return made

    def asked_to_take(self, at: int) -> bool:
        """Whether a verb of taking stands before, with nothing but small words between."""
        for place in range(at - 1, max(-1, at - 7), -1):
            text = self.texts[place]
            if text in self.known.beside.taking:
                return True
            if text not in self.known.beside.about and not self.is_drug(place):
                return False
        return False

    def in_clause(self, at: int, words: frozenset[str]) -> bool:
        """Whether one of these words stands before, in the clause."""
        return any(text in words for text in self.clause_before(at))

    def drug_in_clause(self, at: int) -> bool:
        """Whether a drug's name stands before in the clause, or follows soon."""
        return any(self.known.is_drug(text) for text in self.clause_before(at)) or self.drug_ahead(at)

    def drug_far(self, at: int) -> bool:
        """Whether a passage has a drug's name before, be it in another sentence, or not far behind."""
        return self.source and any(map(is_drug, self.row[max(0, at - _FAR) : at + _FAR // 4]))

    def drug_near(self, at: int) -> bool:
        """Whether a drug's name stands in the clause, be it at its end."""
        return self.drug_in_clause(at) or self.drug_ahead(at, 2 * NEAR)

    def drug_ahead(self, at: int, most: int = 8) -> bool:
        """Whether a drug's name follows soon."""
        for place in range(at, min(len(self.row), at + most)):
            if self.texts[place] in {".", "\n"}:
                return False
            if self.is_drug(place):
                return True
        return False

    def is_cell(self, at: int) -> bool:
        """Whether it may fill a cell of a table between a drug and its dose: a number, a unit, the way it is given."""
        return amounts.is_number(self.row, at) or self.texts[at] in self.known.unitless.routes or bool(self.unit_at(at))

    def drug_named(self, at: int) -> bool:
        """Whether a drug is asked about, or was named not long before."""
        return self.asked or any(map(is_drug, self.row[max(0, at - _FAR) : at]))

    def drug_in_reach(self, at: int) -> bool:
        """Whether a drug is asked about, was named in this sentence or the one before, or surely is in its rest."""
        return self.asked or any(map(is_drug, self.row[max(0, at - 2 * NEAR) : at])) or self.follows(at)

    def follows(self, at: int) -> bool:
        """Whether what is surely a drug's name follows in the sentence, be it far behind."""
        for place in range(at + 1, min(len(self.row), at + 2 * NEAR)):
            if self.texts[place] in {".", "\n"}:
                return False
            if self.known.is_surely_drug(self.texts[place]) and not self.measured(place):
                return True
        return False

    def phrase(self, phrases: dict[str, list[tuple[str, ...]]], at: int) -> int:
        """The end of one of these phrases, if it begins here; 0 for none."""
        found = (p for p in phrases.get(self.text(at), ()) if tuple(self.texts[at : at + len(p)]) == p)
        return next((at + len(phrase) for phrase in found), 0)

    def asked_before(self, at: int) -> bool:
        """Whether a question after a dose ends here, in the answer itself: `How much ibuprofen?`"""
        while self.text(at) == "\n":
            at -= 1
        if at < 0 or self.row[at].written != "?":
            return False
        answering, words = self.known.answering, self.clause_before(at)
        return (
            not answering.quantities.isdisjoint(words)
            and answering.asking_else.isdisjoint(words)
            and (any(map(self.known.is_drug, words)) or self.drug_in_reach(at))
        )

    def past(self, at: int, words: frozenset[str], most: int) -> int:
        """The place after some of these words, and after drugs' names."""
        place = at
        while place < len(self.row) and place < at + most and (self.texts[place] in words or self.is_drug(place)):
            place += 1
        return place

    def is_drug(self, at: int) -> bool:
        """Whether a word looks like a drug's name."""
        return is_drug(self.row[at])

    def is_taken(self, at: int) -> bool:
        """Whether a word is surely a drug's name, of which no level or price is spoken."""
        return (
            self.known.is_surely_drug(self.texts[at])
            and self.texts[at] not in self.known.measuring.in_blood
            and not (self.measured(at))
        )

    def is_name(self, at: int) -> bool:
        """Whether a word is a drug's name, or any name."""
        token = self.row[at]
        return self.is_drug(at) or (
            token.is_word and token.written[:1].isupper() and token.text not in self.known.beside.plain
        )

    def ends(self, end: int) -> bool:
        """Whether nothing follows that a number would count."""
        if end >= len(self.row):
            return True
        text = self.texts[end]
        if (
            text == "per"
            and end + 1 < len(self.row)
            and (self.texts[end + 1] == "cent" or amounts.is_number(self.row, end + 1))
        ):
            return False
        return text not in self.known.beside.counted and (
            not self.row[end].is_word or text in self.known.beside.plain or text in self.known.often.abbreviated
        )

    def measured(self, drug: int) -> bool:
        """Whether a drug's name is a part of what is measured: `lithium levels`, `level on heparin`, `serum iron`."""
        measuring = self.known.measuring
        if not measuring.measures.isdisjoint(self.texts[drug + 1 : drug + 2]):
            return True
        at = drug - 1
        while at >= 0 and at > drug - 4 and self.texts[at] in measuring.measured_on:
            at -= 1
        return at >= 0 and self.texts[at] in (measuring.measures if at < drug - 1 else measuring.measured_as)

    def led_by_drug(self, first: int, between: frozenset[str], *, in_blood: bool = False) -> int:
        """The place of the drug before a number, with nothing between but such words, numbers and units; below zero."""
        with_unit = False
        for at in range(first - 1, max(-1, first - 2 * NEAR), -1):
            if self.is_drug(at):
                tested = self.texts[at] in self.known.measuring.in_blood and not with_unit and not in_blood
                return -1 if tested or self.measured(at) else at
            if self.texts[at] in between or amounts.is_number(self.row, at):
                continue
            if not self.unit_at(at):
                return -1
            with_unit = True
        return -1
