"""A JSON document of a model: doses left out of its strings, and no document at all where a number is one.

Knows keys and neighbours of a number. A document without unsupported doses stays as it was written, to the character.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from medmind_runtime.safety.doses import amounts
from medmind_runtime.safety.doses.cutting import NOTE
from medmind_runtime.safety.doses.drugs import drugs, is_drug, stem
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import UNREADABLE, Token, tokens
from medmind_runtime.safety.doses.subjects import Said
from medmind_runtime.safety.doses.support import Passages
from medmind_runtime.safety.doses.terms import Unit, terms
from medmind_runtime.safety.doses.watch import DoseWatch

REFUSAL = "the document names a dose that no source here gives, and is held back; ask a doctor or pharmacist"
_MOST = 1 << 20
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_PLAIN_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?")
"""Of a size that a dose may have; another equals none."""


class DoseDocument:
    """Takes a whole document, then gives it, gives it with notes in strings, or refuses it.

    Args:
        passages, asked: see `DoseWatch`.
        tidy: what else is done to a string that is shown.

    Attributes:
        refusal: why the document is held back; empty when it is not.
    """

    def __init__(self, passages: Sequence[str], asked: str = "", tidy: Callable[[str], str] = str) -> None:
        self._asked, self._tidy = asked, tidy
        self._passages = Passages(passages, asked)
        self._ambiguous = self._taking = False
        self._pieces: list[str] = []
        self.refusal = ""

    def feed(self, text: str) -> str:
        """Nothing is shown before the end: a unit may stand behind its number."""
        self._pieces.append(text)
        return ""

    def finish(self) -> str:
        """The document; empty where it is refused."""
        text = "".join(self._pieces)
        self._pieces = []
        self._taking = any(token.text in terms().keys.taking for token in tokens(_apart(text[:_MOST])))
        try:
            document = json.loads(text, parse_float=_Number, parse_int=_Number, object_pairs_hook=self._pairs)
            made = self._checked(document, (), "")
            same = made == document and not self._ambiguous
            written = text if same else json.dumps(made, ensure_ascii=False, allow_nan=False, default=_Number.plain)
        except (ValueError, RecursionError):
            return self._broken(text)
        return "" if self.refusal else written

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object; of a key that stands in it twice, the value that is judged is the one that is shown."""
        made = dict(pairs)
        self._ambiguous = self._ambiguous or len(made) < len(pairs)
        return made

    def _broken(self, text: str) -> str:
        """What ends in its middle is shown when there is nothing in it to judge."""
        watch = DoseWatch(self._passages, self._asked)
        plain = re.sub(r'[{}\[\]"\\:,]+', " ", text)
        if len(text) > _MOST or watch.feed(plain) + watch.finish() != plain or _number_near_dose(plain):
            self.refusal = REFUSAL
            return ""
        return text

    def _checked(self, value: Any, keys: tuple[str, ...], subject: str, near: Sequence[str] = ()) -> Any:
        if isinstance(value, Mapping):
            return self._object(value, keys, subject)
        if isinstance(value, list):
            words = [item for item in value if isinstance(item, str)]
            own = " ".join(words) if any(drugs(tokens(word)) for word in words) else subject
            return [self._checked(item, keys, own, (*near, *words)) for item in value]
        if isinstance(value, _Number):
            if self._unsupported(value.written, keys, subject, near):
                self.refusal = REFUSAL
            return value
        if isinstance(value, str):
            return self._string(value, keys, subject, near)
        return value

    def _object(self, value: Mapping[str, Any], keys: tuple[str, ...], subject: str) -> dict[str, Any]:
        strings = [item for item in value.values() if isinstance(item, str)]
        named = [item for item in strings if drugs(tokens(item))]
        drug_keys = [item for key, item in value.items() if isinstance(item, str) and _of_drug(key)]
        own = " ".join(drug_keys or named) or subject
        made: dict[str, Any] = {}
        for key, item in value.items():
            if self._watched(key, own) != key:
                self.refusal = REFUSAL
            path = (*keys, key)
            beside = [other for name, other in value.items() if isinstance(other, str) and name != key]
            made[key] = self._checked(item, path, key if drugs(tokens(key)) else own, (*beside, *value.keys()))
        return made

    def _string(self, value: str, keys: tuple[str, ...], subject: str, near: Sequence[str]) -> str:
        shown = self._watched(value, subject)
        if shown != value:
            return self._tidy(shown)
        row = list(tokens(value))
        bare = len(row) <= 4 and any(token.value is not None or terms().is_number(token.text) for token in row)
        return NOTE if bare and self._unsupported(value, keys, subject, near) else self._tidy(value)

    def _watched(self, text: str, subject: str) -> str:
        watch = DoseWatch(self._passages, subject or self._asked)
        return watch.feed(text) + watch.finish()

    def _unsupported(self, written: str, keys: tuple[str, ...], subject: str, near: Sequence[str]) -> bool:
        """Whether a bare number is a dose, by its key or its neighbours, and no passage has it."""
        own = _key_words(keys[-1]) if keys else []
        path = [word for key in keys for word in _key_words(key)]
        keys_of = terms().keys
        doses = any(word in keys_of.doses for word in path)
        unit = _unit(own) or _unit(path)
        doses = doses or (self._taking and any(word in keys_of.times for word in own))
        if not unit and not doses and any(word in keys_of.other for word in own):
            return False
        unit = unit or next((found for text in near if (found := _unit(_key_words(text), whole=True))), None)
        drug = (bool(subject) and any(drugs(tokens(text)) for text in (subject, *path))) or any(
            _of_drug(text) for text in near
        )
        if not (unit or doses or drug):
            return False
        values = _values(written)
        base = unit or Unit("count", Fraction(1), "", "count")
        mention = Mention(0, 1, tuple(value * base.factor for value in values), base.name)
        row = list(tokens(subject))
        names = drugs(row) or frozenset(stem(t.text) for t in row if t.is_word)
        kind = "most" if any(word in keys_of.most for word in path) else "take"
        claim = Said(mention, names or drugs(tokens(" ".join(path))), kind, frozenset())
        return not self._passages.have(claim, any_unit=unit is None)


class _Number:
    """A number of the document, as it is written."""

    def __init__(self, written: str) -> None:
        self.written = written

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and other.written == self.written

    def __hash__(self) -> int:
        return hash(self.written)

    @staticmethod
    def plain(value: "_Number") -> Any:
        """As `json.dumps` writes it."""
        return json.loads(value.written)


def _values(written: str) -> tuple[Fraction, ...]:
    if _NUMBER.fullmatch(written):
        return (Fraction(written) if _PLAIN_NUMBER.fullmatch(written) else UNREADABLE,)
    row = list(tokens(written))
    found = next((amounts.read(row, at) for at in range(len(row)) if amounts.is_number(row, at)), None)
    return found.values if found else ()


def _key_words(key: str) -> list[str]:
    """`doseMg`, `dose_mg`, `dose (mg)` as words."""
    return [token.text for token in tokens(_apart(key)) if token.is_word]


def _apart(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)


def _unit(words: Sequence[str], *, whole: bool = False) -> Unit | None:
    """The unit among words; `whole`: they are nothing but a unit and its rate."""
    if whole and len(words) > 4:
        return None
    listed = list(words)
    for at in range(len(listed)):
        found = terms().unit(listed[at : at + 3], 0)
        if (
            found
            and found[0].spelt not in terms().unit_lists.no_keys
            and found[0].kind != "weight"
            and len(listed[at]) > (0 if whole or at else 1)
        ):
            return found[0]
    return None


def _of_drug(key: str) -> bool:
    return any(word in terms().keys.drugs for word in _key_words(key)) and len(_key_words(key)) <= 3


def _number_near_dose(text: str) -> bool:
    row: list[Token] = list(tokens(_apart(text)))
    known = terms()
    told = any(
        token.text in known.keys.doses or is_drug(token) or _unit([token.text], whole=True)
        for token in row
        if token.is_word
    )
    return told and any(token.value is not None for token in row)
