"""The Modelfile by which Ollama takes a GGUF as it was trained: template, system prompt, stop tokens, context.

Ollama's templates are Go's, a model's are Jinja's. What the Jinja template writes around a system text, a question and
an answer is found by rendering it, and checked on a conversation of two turns. Source: docs/modelfile.mdx of Ollama.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from medmind.errors import MedmindError

Render = Callable[[Sequence[Mapping[str, str]], bool], str]
"""(messages, whether a reply is to follow) -> text."""

_SYSTEM, _USER, _ANSWER = "\x02s\x03", "\x02u\x03", "\x02a\x03"


def template(render: Render, bos: str) -> str | None:
    """The Go template that writes what `render` writes for one turn; BOS left out, which llama.cpp adds.

    Returns:
        None where the Jinja template does more than put text around the messages, or refuses them.
    """

    def around(*messages: Mapping[str, str], reply: bool) -> list[str] | None:
        text = render(messages, reply).removeprefix(bos)
        parts = []
        for message in messages:
            before, found, text = text.partition(message["content"])
            if not found:
                return None
            parts.append(before)
        return [*parts, text]

    system = {"role": "system", "content": _SYSTEM}
    user = {"role": "user", "content": _USER}
    answer = {"role": "assistant", "content": _ANSWER}
    try:
        plain = around(user, reply=True)
        framed = around(system, user, reply=True)
        whole = around(user, answer, reply=False)
        if plain is None or framed is None or whole is None or "{{" in "".join([*plain, *framed, *whole]):
            return None
        twice = render([user, answer, user], True).removeprefix(bos)
    except MedmindError:  # the template refuses a system message, or a conversation of this form
        return None
    turn = plain[0] + _USER + plain[1]
    gap = whole[1].removeprefix(
        plain[1]
    )  # what stands before an answer and is no part of the prompt, as Mistral's space
    if framed[2] != plain[1] or not whole[1].startswith(plain[1]) or twice != turn + gap + _ANSWER + whole[2] + turn:
        return None
    return (
        f"{{{{ if .System }}}}{framed[0]}{{{{ .System }}}}{framed[1]}{{{{ else }}}}{plain[0]}{{{{ end }}}}"
        f"{{{{ .Prompt }}}}{plain[1]}{gap}{{{{ .Response }}}}{whole[2]}"
    )


def text(file: str, *, go_template: str | None, system_prompt: str, stops: Sequence[str], context: int | None) -> str:
    """The Modelfile.

    Args:
        file: name of the GGUF, beside it.
        go_template: of `template`; without one Ollama takes what it makes of the GGUF's own.
        system_prompt: the run's; may be empty.
        stops: texts of the tokens at which an answer ends.
        context: tokens, or None for Ollama's default.
    """
    lines = [f"FROM ./{file}"]
    if go_template is None:
        lines.append("# the chat template could not be written in Ollama's language: it reads the GGUF's own")
    else:
        lines.append(f"TEMPLATE {_quoted(go_template)}")
    if system_prompt:
        lines.append(f"SYSTEM {_quoted(system_prompt)}")
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops if stop]
    if context is not None:
        lines.append(f"PARAMETER num_ctx {context}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """A value of several lines; one with three quotes in it cannot be written otherwise than with them apart."""
    return f'"""{value.replace(chr(34) * 3, chr(39) * 3)}"""'
