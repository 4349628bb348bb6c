"""Continuing a prompt token by token: evaluate what is new, choose, evaluate what was chosen, until there is an end.

What is done for one token does not depend on how many came before it. Knows no text.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from medmind_runtime.engine.assembly import Parts
from medmind_runtime.engine.sampling import Sampling, chain
from medmind_runtime.engine.speculation import Ahead
from medmind_runtime.engine.timings import Timings
from medmind_runtime.engine.vocabulary import Vocabulary
from medmind_runtime.interruption import Interrupted


def continued(
    parts: Parts,
    vocabulary: Vocabulary,
    prompt: Sequence[int],
    *,
    sampling: Sampling,
    max_tokens: int,
    timings: Timings,
    cancel: Callable[[], bool],
    known: int,
    lookup_text: str,
) -> Iterator[int]:
    """See `engine.Engine.generate`.

    Args:
        parts: the model; what lies in its context already and begins the prompt is used.
        vocabulary: of the model.
        prompt: token ids, fewer than the context holds.
        sampling: how to choose.
        max_tokens: how many at most.
        timings: filled while it goes on.
        cancel: True ends it.
        known, lookup_text: as of `engine.Engine.generate`.
    """
    lib, decoder = parts.lib, parts.decoder
    started = time.perf_counter()
    sampler = None
    ahead = Ahead(
        decoder, lambda: [*vocabulary.tokenize(lookup_text, special=False), *prompt], parts.exact, timings, cancel
    )
    sequence = list(prompt)
    try:
        timings.reused = decoder.keep_prefix(prompt)
        for begin, end in ((timings.reused, known), (max(timings.reused, known), len(prompt))):
            decoder.evaluate(prompt[begin:end], begin, first_output=len(prompt) - 1, cancel=cancel)
        timings.prompt_seconds = time.perf_counter() - started
        sampler = chain(lib, sampling, len(vocabulary), vocabulary.handle)
        row = -1
        for left in reversed(range(min(max_tokens, decoder.context - len(prompt)))):
            if cancel():
                return
            begun = time.perf_counter()
            if timings.generated_tokens:
                row = ahead.row(sequence, left)
            token = int(lib.llama_sampler_sample(sampler, decoder.handle, row))
            sequence.append(token)
            spent = time.perf_counter() - begun
            if row < 1:  # else it was evaluated with the tokens before it
                decoder.token_seconds = spent
            timings.generation_seconds += spent
            timings.generated_tokens += 1
            yield token
            if vocabulary.is_end(token):
                break
        ahead.settle(len(sequence) - 1)
    except Interrupted:
        return
    finally:
        if decoder.handle:  # the engine has not been closed meanwhile
            decoder.keep_prefix(sequence)  # without what was guessed and not said
        if sampler is not None:
            lib.llama_sampler_free(sampler)
