"""A model's answer as a stream of text, behind what the guard says first, and how it ended.

Knows an engine and a watch by their protocols. Knows no turns and no context that may be full of them.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from medmind_runtime.characters import Characters
from medmind_runtime.chat_engine import ChatEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.engine.timings import Timings
from medmind_runtime.exchange import Finish, Prompt, Reply
from medmind_runtime.guard import Watch
from medmind_runtime.repetition import Circle


def streamed(
    engine: ChatEngine,
    prompt: Prompt,
    watch: Watch,
    keep: Callable[[Reply], None],
    *,
    sampling: Sampling,
    max_tokens: int,
    cancel: Callable[[], bool],
    opened: bool,
) -> Iterator[str]:
    """The text, piece by piece; a character is held back until all its bytes are there.

    Args:
        engine: what answers.
        prompt: what it answers.
        watch: sees every character before anybody else does.
        keep: gets the whole, however the stream ends.
        sampling: how tokens are chosen.
        max_tokens: how many at most.
        cancel, opened: of `Conversation.answer`.
    """
    said = [f"{prompt.before.opening}\n\n"] if prompt.before.opening else []
    characters, circle = Characters(), Circle()
    started = time.perf_counter()
    first_seconds: float | None = None
    finish: Finish | None = None
    cancelled = False

    def asked_to_stop() -> bool:
        nonlocal cancelled
        cancelled = cancelled or cancel()
        return cancelled

    tokens = engine.generate(
        prompt.tokens,
        sampling=sampling,
        max_tokens=max_tokens,
        cancel=asked_to_stop,
        known=prompt.known,
        lookup_text=prompt.lookup_text(),
    )
    try:
        if not opened:
            yield from tuple(said)
        for token in tokens:
            if engine.is_end(token):
                finish = "stop"
                break
            if circle.add(token):
                finish = "loop"
                break
            if text := watch.feed(characters.take(engine.detokenize(token))):
                first_seconds = first_seconds or time.perf_counter() - started
                said.append(text)
                yield text
        if text := watch.feed(characters.finish()) + watch.finish():
            said.append(text)
            yield text
    finally:
        spent = replace(engine.timings)
        why = finish or ("cancelled" if cancelled else _unfinished(spent, max_tokens, engine.context))
        keep(Reply("".join(said), why, spent, first_seconds, watch.refusal))


def _unfinished(timings: Timings, max_tokens: int, context: int) -> Finish:
    """Why an answer without an end token ended; a consumer that stops reading counts as cancelling."""
    if timings.generated_tokens >= max_tokens:
        return "length"
    if timings.prompt_tokens + timings.generated_tokens >= context:
        return "context"
    return "cancelled"
