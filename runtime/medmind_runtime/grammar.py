"""From a JSON schema to the grammar that an answer must follow.

Knows llama-cpp-python's converter. Knows no tokens; the grammar works in `sampling`.
"""

import json
from typing import Any

from medmind import console
from medmind.errors import MedmindError

_LARGEST = 1 << 20


def from_schema(text: str) -> str:
    """The grammar (GBNF) of the JSON documents that a JSON schema describes.

    Raises:
        MedmindError: no JSON, no schema, one that refers to other documents, or one that cannot be made a grammar.
    """
    if len(text) > _LARGEST:
        raise MedmindError(f"the schema has {len(text)} characters", f"at most {_LARGEST} are taken")
    try:
        schema = json.loads(text)
        half = half_character(schema)
    except (ValueError, RecursionError) as error:
        raise MedmindError(f"the schema is not JSON: {error}", "give a JSON schema") from error
    if not isinstance(schema, dict):
        raise MedmindError("the schema is not a JSON object", "give a JSON schema")
    if half:
        raise MedmindError(f"the schema holds {half}, half of a character's surrogate pair", "write the whole pair")
    console.require("llama_cpp", "runtime")
    from llama_cpp import llama_grammar

    converter: Any = llama_grammar
    try:
        grammar: str = converter.json_schema_to_gbnf(text)
    except Exception as error:  # the converter raises whatever its steps do
        raise MedmindError(f"the schema cannot be made a grammar: {error}", "use a simpler schema") from error
    return grammar


def half_character(value: Any) -> str:
    r"""A surrogate without its other half in what was read from JSON, as JSON writes it (`\ud800`); empty for none.

    JSON may spell such halves; they are no text that could be encoded.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"\\u{ord(error.object[error.start]):04x}"
    return ""
