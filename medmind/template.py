"""Chat templates: renders messages through the Jinja template of a GGUF, and trusts that template with nothing.

The environment is the one transformers trains with (utils/chat_template_utils.py: trim and lstrip blocks, loop
controls, `raise_exception`, `strftime_now`, `tojson`, `{% generation %}`): a prompt here equals the one in training.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from medmind.errors import MedmindError

_SECONDS = 2.0
_MEMORY = 512 << 20
_LARGEST_SOURCE = 1 << 20
_LARGEST_PRODUCT = 1 << 20
_QUADRATIC_FILTERS = ("urlize", "wordwrap", "striptags", "pprint", "xmlattr")

FALLBACKS = {
    "mistral": (
        "[INST]",
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST] "
        "{% if loop.last %}{% for s in messages if s.role == 'system' %}{{ s.content }}\n\n{% endfor %}{% endif %}"
        "{{ m.content }}[/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}",
    ),
    "chatml": (
        "<|im_start|>",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
}
"""Templates for a GGUF that carries none: name → (the control token that shows it was made for it, the template)."""


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it only passes its body through."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it a plain set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Replace the block by its body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which guards attributes and not resources, without products that outgrow memory or time."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse powers and products that only a hostile template needs."""
        if operator == "**" or _magnitude(left) * _magnitude(right) > _LARGEST_PRODUCT:
            raise jinja2.exceptions.SecurityError(f"the operator {operator} on large values")
        return super().call_binop(context, operator, left, right)


def _magnitude(value: Any) -> float:
    return abs(value) if isinstance(value, int | float) else float(len(value))


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


class Template:
    """A compiled chat template.

    Args:
        source: the Jinja text.
        bos_token, eos_token: texts of these tokens, which templates write themselves.

    Raises:
        MedmindError: the template cannot be compiled.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        if len(source) > _LARGEST_SOURCE:
            raise MedmindError(f"the model's chat template has {len(source)} characters", "use another model file")
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        for name in _QUADRATIC_FILTERS:
            del environment.filters[name]
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        with _mending(), _bounded():
            self._template = environment.from_string(source)

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """The prompt text; special tokens are in it as text.

        Raises:
            MedmindError: the template refuses these messages, fails, or takes more than 2 s or 512 MiB.
        """
        plain = [{str(key): str(value) for key, value in message.items()} for message in messages]
        with _mending(), _bounded():
            return self._template.render(
                messages=plain,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )


@contextmanager
def _mending() -> Iterator[None]:
    """Whatever untrusted template code raises becomes one line."""
    hint = "use another model file, or convert it again"
    try:
        yield
    except MedmindError:
        raise
    except jinja2.exceptions.SecurityError as error:
        raise MedmindError(f"the model's chat template does what is not allowed: {error}", hint) from error
    except jinja2.exceptions.TemplateSyntaxError as error:
        raise MedmindError(f"the model's chat template is not valid: {error.message}", hint) from error
    except jinja2.exceptions.TemplateError as error:
        raise MedmindError(f"the model's chat template refuses these messages: {error}") from error
    except MemoryError as error:
        raise MedmindError("the model's chat template takes too much memory", hint) from error
    except Exception as error:
        raise MedmindError(f"the model's chat template fails: {type(error).__name__}: {error}", hint) from error


@contextmanager
def _bounded() -> Iterator[None]:
    """At most 2 s, held by a trace function in this thread, and where the system can, 512 MiB more address space."""
    deadline = time.monotonic() + _SECONDS

    def watch(_frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.monotonic() > deadline:
            raise MedmindError(
                f"the model's chat template did not finish within {_SECONDS:.0f} s", "use another model file"
            )
        return watch

    before = sys.gettrace()
    with _address_space():
        sys.settrace(watch)
        try:
            yield
        finally:
            sys.settrace(before)


@contextmanager
def _address_space() -> Iterator[None]:
    """Lower this process's own soft limit for the moment; other threads idle while a prompt is rendered."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError):
        yield
        return
    limit = pages * resource.getpagesize() + _MEMORY
    if soft != resource.RLIM_INFINITY and soft < limit:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
