"""How answers, pieces of them and the list of models are written in OpenAI's chat-completions format.

Knows the format alone: no socket, no engine. Source: https://platform.openai.com/docs/api-reference/chat.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmind_runtime.engine.timings import Timings
from medmind_runtime.exchange import Finish


class StopText:
    """Ends a stream of text before the first of some texts; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The part of the text so far that is sure to come before any stop text."""
        self._held += text
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            ready, self._held = self._held[: min(places)], ""
            return ready
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def finish(self) -> str:
        """What was held back and began no stop text after all."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)


@dataclass(frozen=True)
class Writer:
    """Writes the documents of one answer.

    Attributes:
        id: of the answer.
        model: its name.
        created: seconds since 1970.
    """

    id: str
    model: str
    created: int

    @classmethod
    def begin(cls, name: str, model: str) -> "Writer":
        """For an answer that begins now."""
        return cls(f"chatcmpl-{name}", model, math.floor(time.time()))

    def completion(
        self, text: str, finish: str, usage: Mapping[str, Any], more: Mapping[str, Any], *, refusal: str = ""
    ) -> dict[str, Any]:
        """A whole answer.

        Args:
            text: the content; where a document is refused, what is said in its place, if anything.
            finish, usage: as OpenAI has them.
            more: medmind's own, under that name.
            refusal: why there is no document.
        """
        message = {"role": "assistant", "content": (text or None) if refusal else text, "refusal": refusal or None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage, "medmind": more}

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        """One piece of an answer."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **more}

    def usage_chunk(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        """The last piece where usage was asked for: it has no choice."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(timings: Timings) -> dict[str, Any]:
    """OpenAI's usage object; cached tokens are those found in the KV cache."""
    return {
        "prompt_tokens": timings.prompt_tokens,
        "completion_tokens": timings.generated_tokens,
        "total_tokens": timings.prompt_tokens + timings.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": timings.reused},
    }


def finish_reason(finish: Finish, stopped: bool) -> str:
    """OpenAI's word for why an answer ended; `stopped` by a stop text."""
    return "stop" if stopped or finish == "stop" else "length"


def models(name: str, created: int) -> dict[str, Any]:
    """The list of models: the one that is loaded."""
    return {"object": "list", "data": [model(name, created)]}


def model(name: str, created: int) -> dict[str, Any]:
    """One model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "medmind"}
