"""The values that a JSON schema names one by one, by enum and const. Knows how JSON compares them; no grammar."""

from typing import Any

from medmind_runtime.schema.parts import Schema


def named(flat: Schema) -> list[Any] | None:
    """The values that enum and const name; None where they name none."""
    if "enum" not in flat and "const" not in flat:
        return None
    values = flat.get("enum", [flat.get("const")])
    if not isinstance(values, list):
        return []
    return [value for value in values if "const" not in flat or equal(value, flat["const"])]


def equal(one: Any, other: Any) -> bool:
    """As JSON has it: true is not 1, 1.0 is."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def kinds_of(value: Any) -> set[str]:
    """The types of a JSON value."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if value == int(value) else {"number"}
    names = {str: "string", list: "array", dict: "object"}
    return {next((name for kind, name in names.items() if isinstance(value, kind)), "null")}
