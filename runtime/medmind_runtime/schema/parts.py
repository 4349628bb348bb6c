"""The keywords of JSON Schema that are known here, and what several schemas ask for together, as one.

Knows references inside a document, and no grammar. Source: https://json-schema.org/draft/2020-12, and draft 7 where it
differs (items as a list). A keyword that is not known is refused by name: no answer may pass for valid that is not.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from medmind.errors import MedmindError

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator"}
    | {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "$vocabulary", "nullable"}
    | {"contentEncoding", "contentMediaType", "contentSchema"}
)
"""Keywords that leave every value valid, and OpenAPI's that allow more values than a schema without them."""
OF_TYPE: Mapping[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "array": frozenset({"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
}
"""Keywords that speak of values of one type."""
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_KNOWN = frozenset({"$ref", "allOf", "anyOf", "oneOf", "enum", "const", "type"}).union(*OF_TYPE.values())
_SMALLER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_LARGER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_DEEPEST = 64
_MOST_STEPS = 20_000
_LARGEST_SIZE = 40_000

Schema = dict[str, Any]


def refuse(where: str, why: str) -> MedmindError:
    """The error that a place in a schema cannot be made a grammar."""
    place = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in where)
    place = place if len(place) <= 120 else f"{place[:60]}…{place[-59:]}"
    return MedmindError(
        f"the schema cannot be made a grammar: at {place}, {why}", "write it otherwise, or leave it out"
    )


def size(schema: Schema, keyword: str, where: str) -> int | None:
    """A keyword's whole number of 0 or more; None where it is not given."""
    value = schema.get(keyword)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if keyword in schema and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise refuse(where, f"{keyword} must be a whole number of 0 or more")
    if value is not None and value > _LARGEST_SIZE:  # a grammar writes repetitions out
        raise refuse(f"{where}/{keyword}", f"more than {_LARGEST_SIZE} is not supported")
    return value


class Parts:
    """Puts together what the schemas of one document ask for.

    Args:
        document: the whole schema, which references point into.
    """

    def __init__(self, document: Schema | bool) -> None:
        self._document = document
        self._steps = 0

    def step(self, where: str, depth: int) -> None:
        """Count one more schema; refuse where they are too many, or too deep."""
        self._steps += 1
        if depth > _DEEPEST:
            raise refuse(where, f"schemas are nested more than {_DEEPEST} deep")
        if self._steps > _MOST_STEPS:
            raise refuse(where, f"there are more than {_MOST_STEPS} schemas")

    def checked(self, schema: Any, where: str) -> Schema:
        """A schema without its annotations; a keyword that is not known is refused."""
        if not isinstance(schema, dict):
            raise refuse(where, "there is no schema: it must be an object, or true or false")
        found = {name: value for name, value in schema.items() if name not in ANNOTATIONS and name[:2] != "x-"}
        if unknown := next((name for name in found if name not in _KNOWN), None):
            raise refuse(f"{where}/{unknown}", "this keyword is not supported")
        return found

    def target(self, reference: Any, where: str) -> Any:
        """The schema that a reference points at."""
        if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
            raise refuse(
                f"{where}/$ref", f"{str(reference)[:60]!r} is not a place in this document, as #/$defs/name is"
            )
        found: Any = self._document
        for step in reference.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and len(name) < 8 and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                raise refuse(f"{where}/$ref", f"there is no {reference[:60]!r}")
        return found

    def flat(self, schema: Any, where: str, depth: int) -> Any:
        """A schema with what it refers to, and all of `allOf`, in it; true and false stay what they are."""
        self.step(where, depth)
        if isinstance(schema, bool):
            return schema
        rest = self.checked(schema, where)
        parts: list[Any] = []
        if "$ref" in rest:
            reference = rest.pop("$ref")
            parts.append(self.flat(self.target(reference, where), str(reference), depth + 1))
        for index, part in enumerate(listed(rest.pop("allOf", []), f"{where}/allOf", least=0)):
            parts.append(self.flat(part, f"{where}/allOf/{index}", depth + 1))
        for part in parts:
            rest = merged(rest, part, where)
        return rest


def listed(value: Any, where: str, *, least: int = 1) -> list[Any]:
    """A keyword's list of at least so many."""
    if not isinstance(value, list) or len(value) < least:
        raise refuse(where, "there must be a list" + " that is not empty" * (least > 0))
    return value


def merged(one: Schema, other: Any, where: str) -> Schema:
    """A schema of the values that two flat ones describe."""
    if other is True:
        return one
    if other is False:
        raise refuse(where, "false leaves no value")
    _demand_same_members(one, other, where)
    both = dict(one)
    for name, value in other.items():
        if name not in both or both[name] == value:
            both[name] = value
        elif name == "required":
            both[name] = list(dict.fromkeys(listed(both[name], where, least=0) + listed(value, where, least=0)))
        elif name == "properties":
            both[name] = _members(both[name], value, where)
        elif name == "type":
            both[name] = [kind for kind in types(one, where) if kind in types(other, where)]
        elif name in _SMALLER | _LARGER and all(type(bound) in (int, float) for bound in (both[name], value)):
            both[name] = (min if name in _SMALLER else max)(both[name], value)
        else:
            raise refuse(where, f"several {name} are to hold together")
    return both


def _members(one: Any, other: Any, where: str) -> Schema:
    if not isinstance(one, dict) or not isinstance(other, dict):
        raise refuse(where, "properties must be an object")
    both = {name: {"allOf": [one[name], other[name]]} for name in one if name in other and one[name] != other[name]}
    return {**one, **other, **both}


def _demand_same_members(one: Schema, other: Schema, where: str) -> None:
    """`additionalProperties` and `items` speak of what their neighbours do not name: only of those in their schema."""
    for rest, names in (("additionalProperties", "properties"), ("items", "prefixItems")):
        for here, there in ((one, other), (other, one)):
            if rest in here and not set(there.get(names, ())) <= set(here.get(names, ())):
                raise refuse(where, f"{rest} of one schema and {names} of another are to hold together")


def types(schema: Schema, where: str) -> list[str]:
    """The types that a flat schema allows, as far as it says so: by name, or by keywords of one; else all."""
    if "type" not in schema:
        spoken = [kind for kind, keywords in OF_TYPE.items() if not keywords.isdisjoint(schema)]
        return spoken or [kind for kind in TYPES if kind != "integer"]
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    for kind in named:
        if kind not in TYPES:
            raise refuse(f"{where}/type", f"{str(kind)[:60]!r} is no type")
    if not named:
        raise refuse(f"{where}/type", "no type is left")
    return list(dict.fromkeys([*named, *(["integer"] if "number" in named else [])]))
