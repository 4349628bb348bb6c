"""The unit of a number: after it, before it, in the head of its table; or a count, where it is of a drug without one.

Knows what may stand between a number and its unit. Knows not how a dose is put together; see `mentions`.
"""

from collections.abc import Sequence
from fractions import Fraction

from medmind_runtime.safety.doses import bare, schedules
from medmind_runtime.safety.doses.amounts import is_year
from medmind_runtime.safety.doses.meaning import Meaning
from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.surroundings import NEAR
from medmind_runtime.safety.doses.terms import COUNT, Unit

_SOLD_AS = 100
"""`two of the 500s`, and not `in their 60s`."""


class Units(Meaning):
    """Of the numbers in one text.

    Args:
        row, words, source, asked: see `Surroundings`.
        unit_above: of the numbers in the rows of a table.
    """

    def __init__(
        self, row: Sequence[Token], words: list[str], unit_above: Unit | None, *, source: bool, asked: bool
    ) -> None:
        super().__init__(row, words, source=source, asked=asked)
        self.unit_above = unit_above

    def unit_after(self, first: int, at: int) -> tuple[Unit, int] | None:
        """The unit of a number that ends here, maybe with words between."""
        beside, unit_words = self.known.beside, self.known.unit_words
        if (
            self.texts[at : at + 1]
            and (self.texts[at] == "a" or self.texts[at] in beside.each)
            and (found := self.counted(first, at))
        ):
            return found
        strange = passed = 0
        while at < len(self.row) and passed < 9:
            if found := self.unit_at(at):
                unit, size = found
                spoon = unit.kind == "household" and self.texts[at - 1] in beside.modifiers  # `large spoonfuls`
                if strange and unit.kind not in {"form", "soft"} and not spoon:
                    return None
                if unit.spelt == "dose" and strange:
                    return None
                return unit, at + size
            text = self.texts[at]
            if text in beside.counted:
                per = self.texts[at - 1] in self.known.rates.per  # `three sumatriptan a week`
                if strange and (per or self._before_others(first, at)):
                    break
                return None
            picked = text in unit_words.picked and at + 1 < len(self.row) and self.unit_at(at + 1)
            if text in unit_words.soft or text in beside.extra or picked:
                pass
            elif text in beside.modifiers:
                strange = strange or 1
            elif self.is_name(at) or (self.asked_to_take(first) and self.row[at].is_word and text not in beside.plain):
                strange += 1
            else:
                break
            if strange > 3:
                break
            passed += 1
            at += 1
        return self.counted(first, at - passed)

    def _before_others(self, first: int, at: int) -> bool:
        """Whether a number is of a drug before the `and` of `20 warfarin and other medicines`."""
        joint = next((place for place in range(first, at) if self.texts[place] in {"and", "or"}), first)
        return any(map(self.is_drug, range(first, joint)))

    def counted(self, first: int, at: int) -> tuple[Unit, int] | None:
        """A count without a unit: `two ibuprofen`, `take 2 now`, `ten a day of methotrexate`."""
        unit_words, beside, rest = self.known.unit_words, self.known.beside, self.texts[at : at + 3]
        if schedules.is_clock(self, first, at) or self.text(first - 1) == "per":
            return None
        place = next(
            (at + step for step, text in enumerate(self.texts[at : at + 5]) if text not in unit_words.skipped), at
        )
        asked, drug = self.asked_to_take(first), self.drug_in_clause(first)
        chemical = rest[:1] == ["-"] and place == at + 1 and self.row[at].glued and self.row[place].glued
        if rest and self.is_drug(place) and not chemical:
            following = self.texts[place + 1 : place + 2]
            free = not following or not self.row[place + 1].is_word or following[0] in beside.plain
            kinds = self._several(self.texts[place]) and not self.in_clause(first, beside.taking)
            if (asked or free) and not kinds and not bare.is_date(self, first):
                return COUNT, place + 1 if "of" not in rest[: place - at] else at
        limited = drug and self.text(first - 1) in unit_words.limits
        set_apart = self.text(first - 1) in beside.set_apart
        limited = limited or (set_apart and (self.taken_at(first - 2) or (first > 1 and self.is_drug(first - 2))))
        if (asked or limited) and rest[:1] == ["of"] and rest[1:2] and rest[1] in unit_words.of_it:
            goes_on = len(rest) > 2 and self.row[at + 2].is_word and rest[2] not in beside.plain
            return None if goes_on else (COUNT, at + 2)
        if rest[:1] == ["s"] and self.row[at].glued and (drug or self.in_clause(first, beside.taking)):
            value = self.row[at - 1].value or Fraction(0)
            return (COUNT, at + 1) if value >= _SOLD_AS and not is_year(value) else None
        if rest[:1] == ["of"] and self.text(at + 1) in unit_words.of_it:  # `with meals, three of them a day`
            at += 2
            rest, drug = self.texts[at : at + 3], drug or self.drug_in_reach(first)
        a_day = len(rest) > 1 and rest[0] in self.known.rates.per and rest[1] in self.known.rates.of["day"]
        often = bool(rest) and (
            rest[0] in self.known.often.every | self.known.often.abbreviated | self.known.rates.alone
        )
        each_time = rest[:2] in (["each", "time"], ["at", "each"], ["every", "time"])  # `with all meals, two each time`
        often, drug = often or each_time, drug or (each_time and self.drug_in_reach(first))
        if (a_day or often) and (asked or drug or self.drug_ahead(at)):
            return COUNT, at
        ends = not rest or not self.row[at].is_word or (rest[0] in beside.plain and rest[0] not in unit_words.periods)
        told = (
            asked
            and ends
            and self.texts[first:at] != ["one"]
            and not bare.is_age(self, first)
            and not bare.of_measure(self, first)
        )
        return (COUNT, at) if told and not (rest and rest[0] in beside.counted) else None

    def taken_at(self, at: int) -> bool:
        """Whether what is taken stands here: `tablets`, `200 mg`, the `patch` of a drug or with a strength."""
        found = self.unit_at(at) if at >= 0 else None
        if found is None:
            return False
        if found[0].spelt in self.known.unit_lists.dosed_alone:
            return self.drug_in_reach(at) or self.in_clause(at, self.known.beside.percent)
        return found[0].kind == "form" or (found[0].kind == "" and self.numbered_unit(at))

    def _several(self, name: str) -> bool:
        """Whether a class of drugs is named, or what belongs to a drug: `two statins`; not `two Advils`."""
        plural = name.endswith("s") and not self.known.is_brand(name) and self.known.is_drug(name[:-1])
        return name.endswith("'s") or plural

    def unit_before(self, first: int, end: int) -> Unit | None:
        """What a number is of: `Dose (mg): 800`, `mg | 800`, the word `dose` alone; or a drug, `Ibuprofen 800`."""
        beside, unitless, unit_words, following = (
            self.known.beside,
            self.known.unitless,
            self.known.unit_words,
            self.texts[end : end + 1],
        )
        if following and (
            following[0] in beside.counted
            or (self.row[end].is_word and following[0] not in self.known.after_number and not self.is_drug(end))
        ):
            return None
        if above := self.unit_above if self._in_table(first) else self._drops(first):
            return above
        bars = False
        for at in range(first - 1, max(-1, first - NEAR), -1):
            bars = bars or self.texts[at] == "|"
            if bars and self.texts[at] != "|" and self.is_cell(at) and not self._heads(at):
                continue
            if self.texts[at] in unitless.made_as:
                continue
            vitamin = len(self.texts[at]) == 1 and self.text(at - 1) == "vitamin" and self.large(first)
            if vitamin or self.texts[at] in beside.dose_names or self.texts[at] in unit_words.dosing:
                return COUNT
            found = self.unit_at(at)
            if found and self._heads(at):
                return found[0]
            if self.is_drug(at) or self.texts[at] not in unitless.equals:
                return COUNT if self.is_drug(at) and bare.of_drug_before(self, at, first, end) else None
        return None

    def _drops(self, first: int) -> Unit | None:
        """`Morphine drops: 20`, `drops of opium tincture: 15`: of a drug, before a colon."""
        for at in range(first - 2, max(-1, first - NEAR // 2), -1) if self.text(first - 1) == ":" else ():
            found = self.unit_at(at)
            if found and found[0].spelt in self.known.unit_lists.dosed_alone and not self.numbered_unit(at):
                of = self.text(at + 1) == "of" and any(map(self.is_drug, range(at + 2, first - 1)))
                return found[0] if of or (at > 0 and self.is_drug(at - 1)) else None
        return None

    def _heads(self, at: int) -> bool:
        """Whether a unit here may be that of numbers after it."""
        found = self.unit_at(at)
        return found is not None and found[0].kind in {"", "form", "household"} and not self.numbered_unit(at)

    def _in_table(self, first: int) -> bool:
        """Whether a number stands under a table's unit; where it has none, after a drug's name in its line."""
        row = self.texts[max(0, first - NEAR) : first]
        if self.unit_above is None or "|" not in row:
            return False
        line = row[::-1].index("\n") if "\n" in row else len(row)
        if self.unit_above != COUNT or any(map(self.is_drug, range(first - line, first))):
            return True
        cell = first - line + (self.text(first - line) == "|")  # `50 kg | 50` under a drug's name
        return (
            cell < first - 1
            and self.drug_named(first)
            and (self.row[cell].value is not None or self.texts[cell] in self.known.timing.daytime)
        )
