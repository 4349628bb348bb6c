import sys
import time

import pytest

from medmind.errors import MedmindError
from medmind.template import FALLBACKS, Template

MESSAGES = [
    {"role": "system", "content": "be calm"},
    {"role": "user", "content": "what is a <b>cold</b>?"},
    {"role": "assistant", "content": " an infection "},
    {"role": "user", "content": "and then?"},
]
KINDS = {
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}\n{% endfor %}",
    "blocks trimmed": "  {% if true %}\n  {{ bos_token }}\n  {% endif %}\n{{ messages[1]['content'] | tojson }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}!{% endgeneration %}{% endfor %}",
    "prompt": "{{ messages | length }}{% if add_generation_prompt %}assistant:{% endif %}{{ tools is none }}",
    "indented json": "{{ messages[:1] | tojson(indent=2) }}",
    "mistral": FALLBACKS["mistral"][1],
    "chatml": FALLBACKS["chatml"][1],
}


def template(source: str) -> Template:
    return Template(source, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generation", [True, False])
def test_renders_as_transformers_does(kind: str, generation: bool) -> None:
    reference = pytest.importorskip("transformers.utils.chat_template_utils")
    (expected,), _ = reference.render_jinja_template(
        [MESSAGES],
        chat_template=KINDS[kind],
        add_generation_prompt=generation,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert template(KINDS[kind]).render(MESSAGES, add_generation_prompt=generation) == expected


def test_a_refusal_of_the_template_is_told() -> None:
    with pytest.raises(MedmindError, match="refuses these messages: roles must alternate"):
        template("{{ raise_exception('roles must alternate') }}").render(MESSAGES, add_generation_prompt=True)


HOSTILE = {
    "endless loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "doubling": "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s~ns.s %}{% endfor %}",
    "doubling by a block": (
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
        "{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = t %}{% endfor %}"
    ),
    "product of text": "{{ 'x' * 99999999999 }}",
    "product of lists": "{{ ([1] * 99999 * 99999) | length }}",
    "squaring": "{% set ns = namespace(n=99999) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "wide format": "{{ '%099999999999d' % 1 }}",
    "wide centre": "{{ 'x' | center(99999999999) }}",
    "wide indent": "{{ 'x\ny' | indent(99999999999) }}",
    "class walk": "{{ ''.__class__.__mro__[1].__subclasses__() | length }}",
    "function globals": "{{ raise_exception.__globals__['__builtins__']['open']('/etc/passwd').read() }}",
    "import by cycler": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "frames": "{{ (messages | map('upper')).gi_frame.f_globals.x.y }}",
    "format attribute": "{{ '{0.__class__.__init__.__globals__}'.format(messages).x.y }}",
    "changing messages": "{{ messages.append({'role': 'user'}) }}",
    "include": "{% include '/etc/passwd' %}",
    "syntax": "{% for %}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "huge": "x" * (2 << 20),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_template_ends_soon_and_as_one_line(kind: str) -> None:
    tracing = sys.gettrace()
    started = time.monotonic()
    with pytest.raises(MedmindError) as raised:
        template(HOSTILE[kind]).render(MESSAGES, add_generation_prompt=True)
    assert time.monotonic() - started < 5
    assert len(str(raised.value)) < 1000
    assert sys.gettrace() is tracing


def test_the_address_space_is_free_again_after_rendering() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    template("{{ messages }}").render(MESSAGES, add_generation_prompt=True)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
