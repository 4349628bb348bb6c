"""What a model thinks of a given text: log probabilities and logits, row by row. Chooses no token, keeps nothing."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from medmind.errors import MedmindError
from medmind_runtime.engine.decoder import OUTPUT_ROWS, Decoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def log_probs(
    lib: ModuleType, decoder: Decoder, vocabulary: int, tokens: Sequence[int], start: int, *, reuse: bool
) -> "NDArray[np.float64]":
    """See `engine.Engine.log_probs`; `vocabulary` is its size.

    Raises:
        MedmindError: `start` outside 1..len.
    """
    import numpy as np

    _demand_start(tokens, start)
    result = np.empty(len(tokens) - start, dtype=np.float64)

    def take(position: int, row: int) -> None:
        logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(decoder.handle, row), (vocabulary,))
        wide = logits.astype(np.float64)
        top = wide.max()
        result[position + 1 - start] = wide[tokens[position + 1]] - top - np.log(np.exp(wide - top).sum())

    done = decoder.keep_prefix(tokens[:start] if reuse else ())
    if done < start - 1:
        done = decoder.keep_prefix(())
    decoder.evaluate(tokens[done:-1], done, first_output=start - 1, take=take)
    return result


def logit_blocks(
    lib: ModuleType, decoder: Decoder, vocabulary: int, tokens: Sequence[int], start: int
) -> "Iterator[NDArray[np.float32]]":
    """See `engine.Engine.logit_blocks`; `vocabulary` is its size.

    Raises:
        MedmindError: `start` outside 1..len.
    """
    import numpy as np

    _demand_start(tokens, start)
    decoder.keep_prefix(())
    decoder.evaluate(tokens[: start - 1], 0, first_output=start - 1)
    step = min(OUTPUT_ROWS, int(lib.llama_n_batch(decoder.handle)))
    for begin in range(start - 1, len(tokens) - 1, step):
        end = min(begin + step, len(tokens))
        decoder.evaluate(tokens[begin:end], begin, first_output=begin)
        first = lib.llama_get_logits(decoder.handle)
        yield np.ctypeslib.as_array(first, (min(end, len(tokens) - 1) - begin, vocabulary))


def _demand_start(tokens: Sequence[int], start: int) -> None:
    if not 1 <= start <= len(tokens):
        raise MedmindError(f"start is {start} and must be between 1 and {len(tokens)}")
