import json

import pytest

from medmind.errors import MedmindError
from medmind_runtime import grammar
from medmind_runtime.engine import Engine, Sampling

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
    ],
)
def test_what_is_no_usable_schema_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(MedmindError, match="schema"):
        grammar.from_schema(text)


def test_a_grammar_that_is_none_is_refused(engine: Engine) -> None:
    with pytest.raises(MedmindError, match="grammar is not valid"):
        list(engine.generate([1, 3, 4], sampling=Sampling(grammar="root ::= ("), max_tokens=3))
