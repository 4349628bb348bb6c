"""From a JSON schema to the rules of the documents that it describes, and that a validator finds valid.

Knows what each keyword means for a grammar; a restriction that a grammar cannot hold is refused by name and place. The
rules may describe fewer documents than the schema (members in its order, no exponents beside bounds), never others.
llama_cpp.llama_grammar's converter passes over bounds of numbers, `not`, `if`, `prefixItems` and more without a word,
takes line feeds for part of a string, knows no recursive `$ref`, and makes rules that end the process.
"""

import json
from typing import Any

from medmind_runtime.schema import json_rules, numbers, shared_beginnings, text_pattern
from medmind_runtime.schema.constants import equal, kinds_of, named
from medmind_runtime.schema.gbnf import Literal, Ref, Rules, Sequenced, sequence
from medmind_runtime.schema.json_rules import Member
from medmind_runtime.schema.parts import Parts, Schema, listed, merged, refuse, size, types

_LONGEST_NAME = 200


def convert(document: Schema | bool) -> tuple[Rules, Ref]:
    """The rules of a schema's documents, and the one to begin with.

    Raises:
        MedmindError: it is no schema, or asks for what a grammar cannot hold.
    """
    converter = _Converter(document)
    root = converter.value(document, "#", 0)
    places = converter.choices
    if growing := shared_beginnings.share(converter.rules, list(map(Ref, places)), root):
        raise refuse(
            places[growing],
            "too many alternatives begin alike: require in each a first member whose const tells it from the others",
        )
    return converter.rules, root


class _Converter:
    def __init__(self, document: Schema | bool) -> None:
        self.rules = Rules()
        self._parts = Parts(document)
        self._json = json_rules.JsonRules(self.rules)
        self._targets: dict[str, Ref] = {}
        self.choices: dict[str, str] = {}
        """Places in the schema, by the names of the rules that choose between their alternatives."""

    def value(self, schema: Any, where: str, depth: int) -> Ref:
        """The rule of a schema's values."""
        self._parts.step(where, depth)
        if schema is True:
            return self._json.any()
        if schema is False:
            raise refuse(where, "false leaves no value")
        given = self._parts.checked(schema, where)
        if set(given) == {"$ref"}:
            return self._target(given["$ref"], where, depth)
        if set(given) == {"allOf"} and len(listed(given["allOf"], f"{where}/allOf")) == 1:
            return self.value(given["allOf"][0], f"{where}/allOf/0", depth + 1)
        flat = self._parts.flat(given, where, depth)
        return self._described(flat, where, depth) if isinstance(flat, dict) else self.value(flat, where, depth + 1)

    def _described(self, flat: Schema, where: str, depth: int) -> Ref:
        """The rule of a flat schema's values."""
        for keyword in ("anyOf", "oneOf"):
            if keyword in flat:
                return self._one_of(flat, keyword, where, depth)
        if "enum" in flat or "const" in flat:
            return self._constants(flat, where)
        if not flat:
            return self._json.any()
        choices: list[Sequenced] = []
        kinds = types(flat, where)
        for kind in kinds:
            if kind != "integer" or "number" not in kinds:
                choices.append(sequence(self._typed(kind, flat, where, depth)))
        return self.rules.add("value", choices)

    def _target(self, reference: Any, where: str, depth: int) -> Ref:
        """The rule of what is referred to: made once, so that a schema may refer to itself."""
        schema = self._parts.target(reference, where)
        if reference not in self._targets:
            self._targets[reference] = self.rules.reserve("ref")
            self.rules.define(self._targets[reference], [sequence(self.value(schema, reference, depth + 1))])
        return self._targets[reference]

    def _one_of(self, flat: Schema, keyword: str, where: str, depth: int) -> Ref:
        rest = {name: value for name, value in flat.items() if name != keyword}
        alternatives = listed(flat[keyword], f"{where}/{keyword}")
        if keyword == "oneOf":
            self._demand_disjoint(alternatives, f"{where}/oneOf", depth)
        choices: list[Sequenced] = []
        for index, alternative in enumerate(alternatives):
            place = f"{where}/{keyword}/{index}"
            both = merged(rest, self._parts.flat(alternative, place, depth + 1), place) if rest else alternative
            choices.append(sequence(self.value(both, place, depth + 1)))
        choice = self.rules.add("choice", choices)
        self.choices.setdefault(choice.name, f"{where}/{keyword}")
        return choice

    def _demand_disjoint(self, alternatives: list[Any], where: str, depth: int) -> None:
        """Of `oneOf` exactly one may hold, which a grammar cannot see to: they must exclude each other."""
        flat = [self._parts.flat(one, f"{where}/{index}", depth + 1) for index, one in enumerate(alternatives)]
        if len(flat) > 100:
            raise refuse(where, "more than 100 schemas are to exclude each other; anyOf asks for no such thing")
        for index, one in enumerate(flat):
            for other_index, other in enumerate(flat[:index]):
                self._parts.step(where, depth)
                if not self._disjoint(one, other, where, depth):
                    raise refuse(
                        where,
                        f"{other_index} and {index} may hold both; take anyOf, or a property that tells them apart",
                    )

    def _disjoint(self, one: Any, other: Any, where: str, depth: int) -> bool:
        if not isinstance(one, dict) or not isinstance(other, dict):
            return one is False or other is False
        if "type" in one and "type" in other and not set(types(one, where)) & set(types(other, where)):
            return True
        if (ones := named(one)) is not None and (others := named(other)) is not None:
            return not any(equal(value, another) for value in ones for another in others)
        return self._told_apart(one, other, where, depth)

    def _told_apart(self, one: Schema, other: Schema, where: str, depth: int) -> bool:
        """Whether a member that both require tells objects of the one from objects of the other."""
        if "type" not in one or "type" not in other or set(types(one, where)) & set(types(other, where)) != {"object"}:
            return False
        members, other_members = one.get("properties", {}), other.get("properties", {})
        if not isinstance(members, dict) or not isinstance(other_members, dict):
            return False
        names = set(_names(one.get("required"))) & set(_names(other.get("required")))
        for name in sorted(names & set(members) & set(other_members)):
            here = self._parts.flat(members[name], where, depth + 1)
            there = self._parts.flat(other_members[name], where, depth + 1)
            if self._disjoint(here, there, where, depth + 1):
                return True
        return False

    def _constants(self, flat: Schema, where: str) -> Ref:
        values = named(flat)
        if values is None or not values:
            raise refuse(where, "enum must be a list of values, const among them")
        if other := next((name for name in flat if name not in ("enum", "const", "type")), None):
            raise refuse(f"{where}/{other}", "beside enum or const it is not supported")
        kinds = types(flat, where) if "type" in flat else None
        kept = [value for value in values if kinds is None or not kinds_of(value).isdisjoint(kinds)]
        if not kept:
            raise refuse(where, "no value is of the type that is asked for")
        return self.rules.texts("constant", [json.dumps(one, ensure_ascii=False) for one in kept])

    def _typed(self, kind: str, flat: Schema, where: str, depth: int) -> Ref:
        match kind:
            case "object":
                return self._object(flat, where, depth)
            case "array":
                return self._array(flat, where, depth)
            case "string":
                return self._string(flat, where)
            case "number" | "integer":
                return numbers.rule(flat, where, self._json, self.rules, whole=kind == "integer")
            case _:
                return self._json.word(kind)

    def _object(self, flat: Schema, where: str, depth: int) -> Ref:
        properties = flat.get("properties", {})
        required = _names(flat.get("required", []))
        if not isinstance(properties, dict):
            raise refuse(f"{where}/properties", "there must be an object")
        if len(required) != len(listed(flat.get("required", []), f"{where}/required", least=0)):
            raise refuse(f"{where}/required", "there must be a list of names")
        additional = flat.get("additionalProperties", not properties)
        members = dict(properties)
        for name in required:
            if name not in members and additional is False and "additionalProperties" in flat:
                raise refuse(f"{where}/required", f"{name[:60]!r} must be there, and additionalProperties forbids it")
            members.setdefault(name, flat.get("additionalProperties", True))
        if long := next((name for name in members if len(name) > _LONGEST_NAME), None):
            raise refuse(f"{where}/properties", f"the name {long[:20]!r}… has more than {_LONGEST_NAME} characters")
        least, most = size(flat, "minProperties", where) or 0, size(flat, "maxProperties", where)
        if least > max(1, len(set(required))):
            raise refuse(f"{where}/minProperties", "more than 1, and more than are required, is not supported")
        if most is not None and (most < len(members) or most < least):
            raise refuse(f"{where}/maxProperties", f"fewer than the {len(members)} that are named is not supported")
        written = [
            Member(name, self.value(schema, f"{where}/properties/{name}", depth + 1), name in required)
            for name, schema in members.items()
        ]
        if additional is False or most == len(members):
            others = None
        else:
            others = self.value(additional, f"{where}/additionalProperties", depth + 1)
        if least and not written and others is None:
            raise refuse(f"{where}/minProperties", "additionalProperties or maxProperties forbids any member")
        return self._json.object(written, others, most=None if most is None else most - len(members), some=least > 0)

    def _array(self, flat: Schema, where: str, depth: int) -> Ref:
        first, rest = flat.get("prefixItems", []), flat.get("items", True)
        if isinstance(rest, list):  # draft 7
            first, rest = rest, flat.get("additionalItems", True)
        least, most = size(flat, "minItems", where) or 0, size(flat, "maxItems", where)
        if flat.get("uniqueItems", False) is not False and (most is None or most > 1):
            raise refuse(f"{where}/uniqueItems", "a grammar cannot compare values")
        if most is not None and most < least:
            raise refuse(f"{where}/maxItems", "less than minItems leaves no array")
        first = listed(first, f"{where}/prefixItems", least=0)
        items = [self.value(item, f"{where}/prefixItems/{index}", depth + 1) for index, item in enumerate(first)]
        named = "additionalItems" if isinstance(flat.get("items"), list) else "items"
        if rest is False or (items and named not in flat and least <= len(items)):
            if least > len(items):
                raise refuse(f"{where}/minItems", "more than prefixItems, and items forbids others")
            return self._json.array(items, None, least, most)
        return self._json.array(items, self.value(rest, f"{where}/items", depth + 1), least, most)

    def _string(self, flat: Schema, where: str) -> Ref:
        least, most = size(flat, "minLength", where) or 0, size(flat, "maxLength", where)
        if most is not None and most < least:
            raise refuse(f"{where}/maxLength", "less than minLength leaves no text")
        pattern, form = flat.get("pattern"), flat.get("format")
        if pattern is None and form is None:
            return self._json.string(least, most)
        keyword = "format" if pattern is None else "pattern"
        if pattern is not None and form is not None:
            raise refuse(f"{where}/format", "beside a pattern it is not supported")
        if keyword == "format" and (not isinstance(form, str) or form not in json_rules.FORMATS):
            known = ", ".join(sorted(json_rules.FORMATS))
            raise refuse(f"{where}/format", f"{str(form)[:60]!r} is not supported: these are: {known}")
        expression = json_rules.FORMATS[str(form)] if pattern is None else pattern
        if not isinstance(expression, str):
            raise refuse(f"{where}/pattern", "there must be a text")
        try:
            inside, shortest, longest = text_pattern.rules_for(expression, self.rules)
        except text_pattern.NoPattern as error:
            raise refuse(f"{where}/pattern", f"this regular expression is not supported: {error}") from error
        if shortest < least or (most is not None and (longest is None or longest > most)):
            raise refuse(f"{where}/{keyword}", "it takes texts of lengths that minLength and maxLength forbid")
        return self.rules.add("text", [sequence(Literal('"'), inside, Literal('"'))])


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
