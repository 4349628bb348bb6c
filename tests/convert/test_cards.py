"""Modelfile and model card: what Ollama would feed the model is what training rendered; the card says what is known."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bases import TEMPLATE

from medmind.template import FALLBACKS, Template
from medmind_convert import model_card, modelfile
from medmind_convert.source import find


def renderer(source: str) -> modelfile.Render:
    compiled = Template(source, bos_token="<s>", eos_token="</s>")
    return lambda messages, reply: compiled.render(list(messages), add_generation_prompt=reply)


def go(template: str, **values: str) -> str:
    """The few constructs that are used of Go's template language."""
    match = re.fullmatch(r"\{\{ if \.System \}\}(.*)\{\{ else \}\}(.*)\{\{ end \}\}(.*)", template, re.DOTALL)
    assert match
    text = (match[1] if values.get("System") else match[2]) + match[3]
    return re.sub(r"\{\{ \.(\w+) \}\}", lambda found: values.get(found[1], ""), text)


LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>\n"
    "{% elif m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% else %} {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("source", [TEMPLATE, FALLBACKS["mistral"][1], FALLBACKS["chatml"][1], LLAMA2])
def test_the_go_template_writes_what_the_jinja_template_writes(source: str):
    render = renderer(source)
    made = modelfile.template(render, "<s>")
    assert made is not None
    user = {"role": "user", "content": "What is gout?"}
    answer = {"role": "assistant", "content": "A disease.\n- of joints"}
    answered = go(made, Prompt=user["content"], Response=answer["content"])
    assert render([user, answer], False).removeprefix("<s>") == answered
    whole = go(made, Prompt="What is gout?", Response="A disease.\n- of joints") + go(made, Prompt="And then?")
    expected = render([user, answer, {"role": "user", "content": "And then?"}], True).removeprefix("<s>")
    assert whole.startswith(expected)
    framed = render([{"role": "system", "content": "Be brief."}, user], True).removeprefix("<s>")
    assert go(made, Prompt=user["content"], System="Be brief.").startswith(framed)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}",
        "{% for m in messages %}{{ loop.index }}. {{ m.content }}{% endfor %}",
    ],
    ids=["changes the text", "refuses a system message", "counts the turns"],
)
def test_a_template_that_does_more_is_not_written(source: str):
    assert modelfile.template(renderer(source), "<s>") is None
    made = modelfile.text("a.gguf", go_template=None, system_prompt="", stops=["</s>"], context=None)
    assert made.splitlines()[0] == "FROM ./a.gguf"
    assert "TEMPLATE" not in made


def test_the_modelfile_carries_system_prompt_stops_and_context():
    made = modelfile.text(
        "m.gguf", go_template="x", system_prompt='Say """no""" more.', stops=["</s>", ""], context=2048
    )
    assert made == (
        'FROM ./m.gguf\nTEMPLATE """x"""\nSYSTEM """Say \'\'\'no\'\'\' more."""\nPARAMETER stop "</s>"\n'
        "PARAMETER num_ctx 2048\n"
    )


def test_the_card_names_lineage_and_licence_and_only_measured_perplexities(make_run: Callable[..., Path]):
    run = make_run()
    source = find(str(run))
    (source.base.path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    for name in ("trial.q8_0.gguf", "trial.q4_k_m.gguf"):
        (run / name).write_bytes(b"x" * 2048)
    levels = [
        {"file": "trial.q8_0.gguf", "size": 2048, "quality": {"perplexity": {"value": 9.531, "error": 0.161}}},
        {"file": "trial.q4_k_m.gguf", "size": 999, "quality": {"perplexity": {"value": 7.0, "error": 0.1}}},
        {"file": "trial.q2_k.gguf", "size": 1, "quality": None},
    ]
    (run / "benchmark").mkdir()
    (run / "benchmark" / "report.json").write_text(json.dumps({"levels": levels}))
    rows = [model_card.Row(run / f"trial.{quant}.gguf", quant, 8.5) for quant in ("q8_0", "q4_k_m")]
    card = model_card.text(source, rows, model_card.perplexities(run))
    front = card.split("---")[1]
    assert "license: apache-2.0" in front
    assert "base_model" not in front  # a local directory is nobody else's base
    assert re.search(r"`trial\.q8_0\.gguf` \| q8_0.*\| 2\.00 KiB \| 8\.50 \| 9\.53 ± 0\.16 \|", card)
    assert re.search(r"`trial\.q4_k_m\.gguf`.*not measured", card)  # converted again since
    assert source.base_digest in card
    assert "2 rows trained on" in card
    assert "Not a medical device" in card
    (run / "benchmark" / "report.json").write_text("{")
    assert model_card.perplexities(run) == {}
