"""What a request in OpenAI's chat-completions format asks for, or why it is refused.

Knows the format alone: no socket, no engine. Source: https://platform.openai.com/docs/api-reference/chat. What is asked
for and cannot be done is refused by name, never left out silently.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmind.errors import MedmindError
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.schema import grammar
from medmind_runtime.turn import Turn

_MOST_STOPS = 4
_HARMLESS = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields that change nothing in an answer."""
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,),
    "logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "logit_bias": ({},),
}
"""Fields that may be given as long as they ask for nothing."""
_NUMBERS = frozenset(
    {"n", "frequency_penalty", "presence_penalty", "temperature", "top_p", "seed", "max_tokens"}
    | {"max_completion_tokens"}
)
"""Python takes true for 1 and false for 0; JSON does not."""
_KNOWN = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p"}
    | {"seed", "stop", "response_format"}
)


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        message, kind, code, param: as in OpenAI's error object.
    """

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", code: str = "", param: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param

    def document(self) -> dict[str, Any]:
        """OpenAI's error object."""
        error = {"message": self.message, "type": self.kind, "param": self.param or None, "code": self.code or None}
        return {"error": error}


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        model: named in the request; empty when none is.
        system: all system and developer messages; None when there are none.
        turns, question: the other messages.
        sampling, max_tokens: settings of the answer.
        stop: the answer ends before any of these texts.
        stream, with_usage: whether pieces are wanted, and a last one with the token counts.
    """

    model: str
    system: str | None
    turns: Sequence[Turn]
    question: str
    sampling: Sampling
    max_tokens: int
    stop: Sequence[str]
    stream: bool
    with_usage: bool


def parse(body: bytes, *, sampling: Sampling, max_tokens: int) -> Request:
    """Read a request; `sampling` and `max_tokens` hold where it says nothing.

    Raises:
        Refused: it is not valid, or asks for what is not offered.
    """
    try:
        document = json.loads(body)
        half = grammar.half_character(document)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refused(400, "the body must be a JSON object")
    if half:
        raise Refused(400, f"the body holds {half}, half of a character's surrogate pair: that is no text")
    given = {key: value for key, value in document.items() if value is not None and key not in _HARMLESS}
    for name, value in given.items():
        if name in _NUMBERS and isinstance(value, bool):
            raise Refused(400, f"{name} must be a number, not true or false", param=name)
        if name in _NEUTRAL and value not in _NEUTRAL[name]:
            raise Refused(400, f"{name} is not supported here", param=name, code="unsupported_parameter")
        if name not in _NEUTRAL and name not in _KNOWN:
            shown = _short(name)
            raise Refused(400, f"{shown} is not a known field", param=shown, code="unknown_parameter")
    system, turns, question = _messages(given.get("messages"))
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise Refused(400, "stream_options must be an object", param="stream_options")
    try:
        wanted = Sampling(
            **{
                **vars(sampling),
                "temperature": _number(given, "temperature", sampling.temperature, 2),
                "top_p": _number(given, "top_p", sampling.top_p, 1),
                "seed": _whole(given, "seed", sampling.seed, least=-(2**63)),
                "grammar": _grammar(given.get("response_format", {"type": "text"})),
            }
        )
    except MedmindError as error:
        raise Refused(400, error.message) from error
    limit = _whole(given, "max_completion_tokens", _whole(given, "max_tokens", max_tokens))
    return Request(
        model=_text(given, "model"),
        system=system,
        turns=turns,
        question=question,
        sampling=wanted,
        max_tokens=max_tokens if limit is None else limit,
        stop=_stops(given.get("stop", [])),
        stream=_flag(given, "stream"),
        with_usage=_flag(options, "include_usage"),
    )


def _messages(messages: Any) -> tuple[str | None, list[Turn], str]:
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages must be a list with at least one message", param="messages")
    system: list[str] = []
    talk: list[tuple[str, str]] = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, dict):
            raise Refused(400, f"{where} must be an object", param=where)
        role, content = message.get("role"), message.get("content")
        if role == "assistant" and content is None:  # as an answer was written that was refused
            content = _text({"refusal": message.get("refusal") or ""}, "refusal")
        content = _content(content, where)
        if role in ("system", "developer"):
            system.append(content)
        elif role not in ("user", "assistant"):
            raise Refused(400, f"{where} has the role {_short(repr(role))}: not supported here", param=f"{where}.role")
        elif talk and talk[-1][0] == role:
            talk[-1] = (role, f"{talk[-1][1]}\n\n{content}")
        else:
            talk.append((role, content))
    if len(talk) % 2 == 0 or talk[0][0] != "user":
        raise Refused(400, "messages must begin and end with one of the user", param="messages")
    texts = [content for _, content in talk]
    turns = [Turn(question, answer) for question, answer in zip(texts[:-1:2], texts[1::2], strict=True)]
    return "\n\n".join(system) if system else None, turns, texts[-1]


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    if not parts or not all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
        raise Refused(400, f"{where}.content must be text", param=f"{where}.content")
    return "".join(_text(part, "text") for part in parts)


def _grammar(wanted: Any) -> str:
    """The grammar of the format that is wanted; empty for text."""
    schema: Any
    match wanted:
        case {"type": "text"}:
            return ""
        case {"type": "json_object"}:
            schema = {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": (dict() | bool()) as schema}}:
            pass
        case _:
            raise Refused(
                400,
                "response_format must be of type text, json_object, or json_schema with a schema",
                param="response_format",
            )
    try:
        return grammar.from_schema(json.dumps(schema))
    except MedmindError as error:
        raise Refused(400, error.message, param="response_format") from error


def _stops(stop: Any) -> list[str]:
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > _MOST_STOPS:
        raise Refused(400, f"stop must be a text or a list of at most {_MOST_STOPS}", param="stop")
    return [text for text in texts if text]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise Refused(400, f"{name} must be text", param=name)
    return value


def _flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise Refused(400, f"{name} must be true or false", param=name)
    return value


def _number(document: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = document.get(name, default)
    if not isinstance(value, int | float) or not (0 <= value <= most):
        raise Refused(400, f"{name} must be a number between 0 and {most}", param=name)
    return float(value)


def _whole(document: Mapping[str, Any], name: str, default: int | None, *, least: int = 1) -> int | None:
    value = document.get(name, default)
    if value is None:
        return None
    if not isinstance(value, int) or not least <= value < 2**63:
        raise Refused(400, f"{name} must be a whole number between {least} and {2**63 - 1}", param=name)
    return value if least == 1 else value % (2**32 - 1)
