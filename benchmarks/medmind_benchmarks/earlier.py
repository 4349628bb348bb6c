"""Documents of the schemas before a report's own: what they did not say is put in. Knows no record of a report."""

from collections.abc import Mapping
from typing import Any

from medmind.errors import MedmindError
from medmind_benchmarks.typed_json import added

_FAMILY = "medmind-benchmark-quants"
_AS_TOOLS = f"{_FAMILY}/5"
"""As the one after it, without `Conditions.memory_as_chat`, which was off in all of them."""
_UNTOLD = f"{_FAMILY}/4"
"""As the one after it, without `Conditions.flash`, which was on in all of them."""
_UNCAUSED = f"{_FAMILY}/3"
"""As the one after it, without `Gap.cause` and `Perplexity.cache_ratio`."""
_ALONE = f"{_FAMILY}/2"
"""As the one after it, without `Report.beside`."""


def completed(document: Mapping[str, Any], current: str) -> Mapping[str, Any]:
    """The document in the schema `current`; one of another family or shape is left to the decoder.

    Raises:
        MedmindError: a schema of the family that is not read any more, or not yet.
    """
    schema = document.get("schema")
    if schema == _ALONE:
        schema, document = _UNCAUSED, {**document, "beside": {}}
    if schema == _UNCAUSED:
        schema, document = _UNTOLD, {**document, "levels": _levels(document.get("levels"))}
    if schema == _UNTOLD:
        schema, document = _AS_TOOLS, {**document, "conditions": added(document.get("conditions"), flash=True)}
    if schema == _AS_TOOLS:
        conditions = added(document.get("conditions"), memory_as_chat=False)
        return {**document, "schema": current, "conditions": conditions}
    if schema != current and isinstance(schema, str) and schema.startswith(f"{_FAMILY}/"):
        raise MedmindError(
            f"this report has the schema {schema}, this medmind reads {current}",
            "measure again with: medmind-bench quants --force",
        )
    return document


def _levels(levels: Any) -> Any:
    def figures(old: Any) -> Any:
        texts = {name: old[name] and {**old[name], "cache_ratio": None} for name in ("answers", "raw")}
        return {**old, **texts}

    try:
        return [
            {
                **level,
                "gaps": [{**gap, "cause": "other"} for gap in level["gaps"]],
                "figures": figures(level["figures"]),
                "kv": [figures(one) for one in level["kv"]],
            }
            for level in levels
        ]
    except (KeyError, TypeError):
        return levels
