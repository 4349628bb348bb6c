"""How likely an answer's tokens are behind a prompt, and the engine's language that both are tokenized in.

Knows an engine and token ids; no question and no report.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medmind import turns
from medmind.errors import MedmindError

if TYPE_CHECKING:
    from medmind_runtime.engine.engine import Engine


def language_of(engine: "Engine") -> turns.Language:
    """The engine's template and tokenizer as `medmind.turns` wants them."""
    return turns.Language(
        render=lambda messages, generate: engine.render(messages, add_generation_prompt=generate),
        tokenize=lambda text: engine.tokenize(text, special=True),
        controls=[token.text for token in engine.vocabulary.controls],
        eos=engine.vocabulary.eos,
        bos=engine.vocabulary.bos if engine.vocabulary.bos >= 0 else None,
    )


def log_likelihood(engine: "Engine", prompt: Sequence[int], answer: Sequence[int], name: str) -> float:
    """Σ ln p(answer's tokens | prompt); a prompt that was evaluated last is taken from the KV cache.

    Raises:
        MedmindError: it is not a number; `name` says whose.
    """
    found = math.fsum(engine.log_probs([*prompt, *answer], len(prompt), reuse=True).tolist())
    if not math.isfinite(found):
        raise MedmindError(f"the model gives a probability of zero or not-a-number in question {name}")
    return found
