"""Fields of a config.json or adapter_config.json, each of the type it must have, or refused with its file and name.

Python's JSON reads NaN, Infinity and numbers of any length: none of them passes for a number here. Knows no field.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from medmind.artifacts import read_json
from medmind.errors import MedmindError

_MOST = (1 << 32) - 1
"""The largest count that a GGUF holds."""


@dataclass(frozen=True)
class Fields:
    """One JSON object of a file. A field that is null counts as missing, as in transformers and PEFT.

    Attributes:
        file: the file.
        values: field -> value.
        within: the field that is this object; empty for the whole file.
    """

    file: Path
    values: Mapping[str, Any]
    within: str = ""

    @classmethod
    def read(cls, file: Path) -> "Fields":
        """The fields of a file that holds a JSON object."""
        return cls(file, read_json(file))

    def refuse(self, key: str, must: str) -> NoReturn:
        """Raise with the file, the field, what it is and what it must be."""
        name = f"{self.within}.{key}" if self.within else key
        raise MedmindError(f"{self.file} gives {name} as {_shown(self.values.get(key))}", f"it must be {must}")

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self._given(key, default)
        if not is_positive(value):
            self.refuse(key, "a number above 0")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number from 1."""
        value = self._given(key, default)
        if type(value) is not int or not 0 < value <= _MOST:
            self.refuse(key, "a whole number above 0")
        return value

    def flag(self, key: str) -> bool:
        """True or false, which it is where it is missing."""
        value = self._given(key, False)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def text(self, key: str) -> str:
        """A text; empty where it is missing."""
        value = self._given(key, "")
        if not isinstance(value, str):
            self.refuse(key, "a text")
        return value

    def object(self, key: str) -> "Fields":
        """An object; empty where it is missing."""
        value = self._given(key, {})
        if not isinstance(value, dict):
            self.refuse(key, "an object")
        return Fields(self.file, value, key)

    def _given(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0, and not too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and value > 0
    except OverflowError:
        return False


def is_texts(value: object) -> bool:
    """Whether it is a list of texts."""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
