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
    except (ValueError, RecursionError) as error:
        raise MedmindError(f"the schema is not JSON: {error}", "give a JSON schema") from error
    if not isinstance(schema, dict):
        raise MedmindError("the schema is not a JSON object", "give a JSON schema")
    console.require("llama_cpp", "runtime")
    from llama_cpp import llama_grammar

    converter: Any = llama_grammar
    try:
        grammar: str = converter.json_schema_to_gbnf(text)
    except Exception as error:  # the converter raises whatever its steps do
        raise MedmindError(f"the schema cannot be made a grammar: {error}", "use a simpler schema") from error
    return grammar
