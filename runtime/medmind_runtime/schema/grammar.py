"""The grammar that an answer must follow, of a JSON schema as text.

Knows what llama.cpp bears: a grammar beyond it ends the process. Knows no tokens; the grammar works in `sampling`.
"""

import json
import math
from typing import Any

from medmind.errors import MedmindError
from medmind_runtime.schema import json_schema
from medmind_runtime.schema.cost import Cost, cost_of

LARGEST = 1 << 20
"""Characters of a schema."""
_MOST_ELEMENTS = 200_000
_DEEPEST = 2_000
_MOST_BEGINNINGS = 1_000_000


def from_schema(text: str) -> str:
    """The grammar (GBNF) of the JSON documents that a JSON schema describes.

    Raises:
        MedmindError: no JSON, no schema, one that allows no document, one that refers to other documents, one that asks
            for what a grammar cannot hold, or one whose grammar is too large for llama.cpp.
    """
    if len(text) > LARGEST:
        raise MedmindError(f"the schema has {len(text)} characters", f"at most {LARGEST} are taken")
    try:
        schema = json.loads(text, parse_constant=_finite, parse_float=_finite)
        half = half_character(schema)
    except (ValueError, RecursionError) as error:
        raise MedmindError(f"the schema is not JSON: {error}", "give a JSON schema") from error
    if schema is False:
        raise MedmindError("the schema is false, which allows no answer at all", "true takes any JSON")
    if schema is not True and not isinstance(schema, dict):
        raise MedmindError("the schema is neither a JSON object nor true", "give a JSON schema")
    if half:
        raise MedmindError(f"the schema holds {half}, half of a character's surrogate pair", "write the whole pair")
    rules, root = json_schema.convert(schema)
    _demand_bearable(cost_of(rules.named))
    return rules.text(root)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is no number that can be held")
    return value


def _demand_bearable(cost: Cost) -> None:
    """Refuse what llama.cpp would not bear."""
    if cost.circular:
        raise MedmindError(
            "the schema refers to itself before anything is written", "let it refer to itself in a member"
        )
    if cost.endless:
        raise MedmindError(
            "the schema describes no document that ends", "leave out what refers to itself, or allow null"
        )
    for what, most, name in (
        (cost.elements, _MOST_ELEMENTS, "elements"),
        (cost.depth, _DEEPEST, "rules that begin with one another"),
        (cost.beginnings, _MOST_BEGINNINGS, "ways to begin"),
    ):
        if what > most:
            raise MedmindError(
                f"the schema makes a grammar of {what} {name}: {most} are taken",
                "give smaller bounds of lengths and fewer members, or leave them out",
            )


def half_character(value: Any) -> str:
    r"""A surrogate without its other half in what was read from JSON, as JSON writes it (`\ud800`); empty for none.

    JSON may spell such halves; they are no text that could be encoded.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"\\u{ord(error.object[error.start]):04x}"
    return ""
