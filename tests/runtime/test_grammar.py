import json
import random

import pytest
from jsonschema import Draft202012Validator

from medmind.errors import MedmindError
from medmind_runtime.engine.engine import Engine, Sampling
from medmind_runtime.schema import grammar, json_rules, json_schema
from medmind_runtime.schema.gbnf import Characters, Literal, Part, Ref, Rules

SCHEMA = {
    "type": "object",
    "properties": {"urgent": {"type": "boolean"}, "kind": {"enum": ["drug", "disease"]}},
    "required": ["urgent", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_model_of_random_weights_answers_by_the_schema(engine: Engine, temperature: float) -> None:
    rules = grammar.from_schema(json.dumps(SCHEMA))
    sampling = Sampling(temperature=temperature, seed=1, grammar=rules)
    tokens = list(engine.generate([1, 3, 270, 4], sampling=sampling, max_tokens=400))
    assert engine.is_end(tokens[-1])
    said = json.loads(b"".join(map(engine.detokenize, tokens)))
    assert set(said) == {"urgent", "kind"}
    assert isinstance(said["urgent"], bool)
    assert said["kind"] in ("drug", "disease")


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"$ref": "https://example.org/schema.json"}', '{"type": "nothing"}', "[" * 100_000, " " * 2**21),
        r'{"enum": ["\ud800"]}',
        *("false", "null", "3", '{"properties": {"a": false}, "required": ["a"]}'),
    ],
)
def test_what_is_no_usable_schema_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(MedmindError, match="schema") as refused:
        grammar.from_schema(text)
    assert refused.value.hint


def test_a_schema_that_is_true_takes_any_json() -> None:
    assert grammar.from_schema("true") == grammar.from_schema("{}")


def test_a_grammar_that_is_none_is_refused(engine: Engine) -> None:
    with pytest.raises(MedmindError, match="grammar is not valid"):
        list(engine.generate([1, 3, 4], sampling=Sampling(grammar="root ::= ("), max_tokens=3))


def _written(rules: Rules, ref: Ref, chance: random.Random, depth: int = 0) -> str:
    """A random text that follows a rule; the shortest choices once it is deep."""
    choices = rules.choices(ref)
    if depth > 25:
        choices = sorted(choices, key=lambda choice: sum(isinstance(part.symbol, Ref) for part in choice))[:1]
    text = []
    for part in chance.choice(choices):
        most = part.least + 2 if part.most is None else part.most
        for _ in range(
            part.least if depth > 25 else chance.choice((part.least, chance.randint(part.least, most), most))
        ):
            match part.symbol:
                case Literal(literal):
                    text.append(literal)
                case Characters(ranges):
                    low, high = chance.choice(ranges)
                    text.append(chr(chance.choice((low, high, chance.randint(low, min(high, low + 200))))))
                case Ref():
                    text.append(_written(rules, part.symbol, chance, depth + 1))
    return "".join(text)


TREE = {
    "$defs": {"t": {"type": "object", "properties": {"v": {"type": "integer"}, "c": {"$ref": "#/$defs/t"}}}},
    "$ref": "#/$defs/t",
}
NODE = {"$ref": "#/$defs/node"}


def _recursive(*members: dict[str, object]) -> dict[str, object]:
    """A choice of objects of these members, or null, that `NODE` refers to."""
    objects = [{"type": "object", "properties": one, "required": list(one)} for one in members]
    alternatives = [{**one, "additionalProperties": False} for one in objects]
    return {"$defs": {"node": {"anyOf": [*alternatives, {"type": "null"}]}}, **NODE}


LATE_KINDS = _recursive(*({"a": NODE, "kind": {"const": kind}} for kind in ("x", "xy", "z")))
LISTS = _recursive(*({"kind": {"const": kind}, "a": {"type": "array", "items": NODE}} for kind in ("x", "xy")))
OPEN = {"$defs": {"node": {"anyOf": [{"properties": {"a": NODE}, "type": "object"}, {}]}}, **NODE}
TEXTS_ALIKE = _recursive(*({"name": {"type": "string", **more}, "a": NODE} for more in ({}, {"maxLength": 5})))
NAMES_ALIKE = [{"properties": {"a": {"$ref": "#"}}}, {"additionalProperties": {"$ref": "#"}, "type": "object"}]
LEVELS = {
    f"d{i}": {
        "anyOf": [
            {"type": "object", "properties": {"name": {"type": "string", **more}, "a": {"$ref": f"#/$defs/d{i - 1}"}}}
            for more in ({}, {"maxLength": 5})
        ]
    }
    for i in range(1, 20)
}
MANY_KINDS = {
    "anyOf": [
        {"type": "object", "properties": {"kind": {"const": f"k{i}"}, f"m{i}": {"type": "null"}}, "required": ["kind"]}
        for i in range(200)
    ]
}
HELD: list[dict[str, object] | bool] = [
    LATE_KINDS,
    LISTS,
    OPEN,
    MANY_KINDS,
    {"anyOf": [{"enum": ["ab", "ac", "b"]}, {"type": "string", "pattern": "^a[b-d]$"}, {"const": "ab"}]},
    {},
    True,
    {"allOf": [True, {"title": "x"}, {"$ref": "#/$defs/any"}], "$defs": {"any": True}},
    {"anyOf": [True, {"type": "null"}], "type": ["string", "null"]},
    {"type": "array", "prefixItems": [True], "items": True, "maxItems": 3},
    {"properties": {"a": True}, "additionalProperties": True, "required": ["a"]},
    {"type": "object"},
    {"const": 'a "quoted" \\ back\n'},
    {"enum": ["é", "a/b", 1.5, None, {"x": [1]}], "type": ["string", "object", "null"]},
    {"enum": [f"value {number}" for number in range(50)]},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": r'^[A-Z]{2}-\d{3,5}(?:\.[^a"]\\)?$'},
    {"type": "string", "pattern": "b|c+"},
    {"type": "string", "pattern": "^a+?b{1,2}?c??$"},
    *({"type": "string", "format": form} for form in sorted(json_rules.FORMATS)),
    *({"type": "integer", "minimum": low, "maximum": high} for low, high in ((-120, 95), (0, 9), (7, 7), (998, 12003))),
    {"type": "integer", "exclusiveMinimum": -3, "maximum": 2.5},
    {"type": "integer", "minimum": 10**16},
    {"type": "integer", "multipleOf": 100, "minimum": -950},
    {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 100},
    *(
        {"type": "number", "minimum": low, "maximum": high}
        for low, high in ((0, 1), (-2.75, 13.05), (0.25, 0.3), (5, 5))
    ),
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "exclusiveMinimum": -1.5, "exclusiveMaximum": -1.25},
    {"minimum": 37.5},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {
        "type": "array",
        "prefixItems": [{"const": 1}, {"const": 2}],
        "items": {"type": "null"},
        "minItems": 1,
        "maxItems": 3,
    },
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False},
    {"type": "object", "properties": {"a": {"type": "integer"}, "ab": {}}, "additionalProperties": {"type": "string"}},
    {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["b", "z"], "maxProperties": 4},
    {"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1},
    {"properties": {"a": {"const": 1}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"},
    {"allOf": [{"type": "integer", "minimum": 3}, {"minimum": 5, "maximum": 8}]},
    {"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
    {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": kind}, kind: {}}, "required": ["kind"]}
            for kind in ("drug", "disease")
        ]
    },
    TREE,
]


@pytest.mark.parametrize("schema", HELD, ids=json.dumps)
def test_all_that_follows_the_grammar_is_valid_json_of_the_schema(schema: dict[str, object] | bool) -> None:
    rules, root = json_schema.convert(schema)
    validator = Draft202012Validator(schema)
    chance = random.Random(1)
    for _ in range(60):
        text = _written(rules, root, chance)
        validator.validate(json.loads(text))


@pytest.mark.parametrize(
    ("schema", "documents"),
    [
        ({"type": "integer", "minimum": -12, "maximum": 25}, list(range(-12, 26))),
        ({"type": "integer", "exclusiveMinimum": -1, "maximum": 60, "multipleOf": 7}, list(range(0, 61, 7))),
        ({"enum": ["a", 1, None, True, '"']}, ["a", 1, None, True, '"']),
        ({"anyOf": [{"const": 1}, {"const": [1, 2]}]}, [1, [1, 2]]),
        ({"anyOf": [{"enum": ["ab", "ac", 1]}, {"pattern": "^a[b-d]$"}]}, ["ab", "ac", 1, "ad"]),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 1}, [[], [True], [False]]),
        (
            {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["b"]},
            [{"b": 2}, {"a": 1, "b": 2}],
        ),
    ],
    ids=json.dumps,
)
def test_all_that_the_schema_takes_can_be_written(schema: dict[str, object], documents: list[object]) -> None:
    rules, root = json_schema.convert({"additionalProperties": False, **schema} if "properties" in schema else schema)
    chance = random.Random(2)
    written = {json.dumps(json.loads(_written(rules, root, chance))) for _ in range(4000)}
    assert written == set(map(json.dumps, documents))


Place = tuple[Part, ...]
"""What is still to come."""


def _ahead(rules: Rules, place: Place) -> set[Place]:
    """The places that llama.cpp follows for one: those that a character comes next at, and the end."""
    if not place:
        return {place}
    part, rest = place[0], place[1:]
    found = _ahead(rules, rest) if part.least == 0 else set()
    if part.most != 0:
        left = Part(part.symbol, max(0, part.least - 1), None if part.most is None else part.most - 1)
        behind = rest if left.most == 0 else (left, *rest)
        match part.symbol:
            case Ref():
                found |= {one for choice in rules.choices(part.symbol) for one in _ahead(rules, (*choice, *behind))}
            case symbol:
                found.add((Part(symbol), *behind))
    return found


def _behind(place: Place, letter: str) -> Place | None:
    """The place after a character; None where another one is wanted."""
    match place[0].symbol if place else None:
        case Literal(text) if text[0] == letter:
            return (Part(Literal(text[1:])), *place[1:]) if text[1:] else place[1:]
        case Characters(ranges) if any(low <= ord(letter) <= high for low, high in ranges):
            return place[1:]
    return None


@pytest.mark.parametrize(
    ("schema", "level", "levels"),
    [
        (LATE_KINDS, '{"a":', 8),
        (OPEN, '{"a":', 8),
        (MANY_KINDS, '{"kind":"k1', 1),
    ],
    ids=["told apart late", "any object", "many kinds"],
)
def test_what_llama_follows_at_a_time_does_not_double_with_each_level(
    schema: dict[str, object], level: str, levels: int
) -> None:
    rules, root = json_schema.convert(schema)
    places = _ahead(rules, (Part(root),))
    for letter in level * levels:
        after = [behind for place in places if (behind := _behind(place, letter)) is not None]
        places = {one for place in after for one in _ahead(rules, place)}
    assert 0 < len(places) < 100


@pytest.mark.parametrize("schema", HELD, ids=json.dumps)
def test_llama_takes_every_grammar(
    engine: Engine, schema: dict[str, object] | bool, capfd: pytest.CaptureFixture[str]
) -> None:
    sampling = Sampling(grammar=grammar.from_schema(json.dumps(schema)))
    assert list(engine.generate([1, 3, 4], sampling=sampling, max_tokens=1))
    assert capfd.readouterr().err == ""


DOUBLED = {
    f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i - 1}"}, {"type": "object", "properties": {f"k{i}": {}}}]}
    for i in range(1, 99)
}
REFUSED: list[tuple[dict[str, object], str]] = [
    ({"type": "string", "minLength": 100_000, "maxLength": 200_000}, "#/minLength, more than"),
    ({"type": "array", "maxItems": 10**12}, "#/maxItems, more than"),
    ({"type": "object", "properties": {f"p{i}": {} for i in range(3000)}}, "rules that begin with one another"),
    ({"type": "array", "prefixItems": [{"type": "string", "maxLength": 30_000 + i} for i in range(9)]}, "elements"),
    ({"$defs": {"d0": {}, **DOUBLED}, "$ref": "#/$defs/d98"}, "more than 64 deep"),
    ({"type": "string", "pattern": "^((a{1,100}){1,100}){1,9}$"}, "multiply to"),
    ({"properties": {"a": {"not": {}}}}, "#/properties/a/not"),
    *(({name: {}}, f"#/{name}") for name in ("if", "dependentRequired", "patternProperties", "contains", "minLenght")),
    ({"uniqueItems": True}, "#/uniqueItems"),
    ({"minProperties": 3}, "#/minProperties"),
    ({"format": "uri"}, "'uri' is not supported"),
    ({"type": "number", "multipleOf": 0.1}, "#/multipleOf"),
    ({"oneOf": [{"type": "string"}, {"minLength": 3}]}, "may hold both"),
    ({"minimum": 5, "maximum": 3}, "leave no number"),
    ({"$ref": "#"}, "refers to itself"),
    (TEXTS_ALIKE, "#/$defs/node/anyOf, too many alternatives begin alike"),
    ({"anyOf": NAMES_ALIKE}, "#/anyOf, too many alternatives begin alike"),
    ({"$defs": {"d0": {}, **LEVELS}, "$ref": "#/$defs/d19"}, "#/$defs/d7/anyOf, too many alternatives begin alike"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no document that ends"),
]


@pytest.mark.parametrize(("schema", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_a_grammar_cannot_hold_or_llama_not_bear_is_refused_by_place(schema: dict[str, object], says: str) -> None:
    with pytest.raises(MedmindError) as refused:
        grammar.from_schema(json.dumps(schema))
    assert says in refused.value.message
