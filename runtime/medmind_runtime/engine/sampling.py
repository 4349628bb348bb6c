"""How the next token is chosen: the settings, and llama.cpp's sampler chain for them.

Knows what a setting may be. Knows no model, and of a grammar only where it stands in the chain.
"""

import secrets
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from medmind.errors import MedmindError

_PENALTY_WINDOW = 64


@dataclass(frozen=True)
class Sampling:
    """Settings of the sampler chain, applied in this order.

    Attributes:
        repeat_penalty: divides the logits of the last 64 generated tokens; 1 is off.
        top_k: how many of the likeliest tokens stay; 0 is all.
        top_p: the likeliest tokens that together have this probability stay; 1 is all.
        min_p: tokens with at least this fraction of the likeliest one's probability stay; 0 is all.
        temperature: 0 always takes the likeliest token: the same question gives the same answer.
        seed: None draws one.
        grammar: GBNF that the answer must follow, as `grammar.from_schema` makes it; empty for none. It comes first.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int | None = None
    grammar: str = ""

    def __post_init__(self) -> None:
        """Raises MedmindError for a value out of its range."""
        _demand(0 <= self.temperature <= 10, "temperature", self.temperature, "between 0 and 10")
        _demand(self.top_k >= 0, "top-k", self.top_k, "0 or more")
        _demand(0 < self.top_p <= 1, "top-p", self.top_p, "above 0 and at most 1")
        _demand(0 <= self.min_p <= 1, "min-p", self.min_p, "between 0 and 1")
        _demand(0 < self.repeat_penalty <= 10, "repeat-penalty", self.repeat_penalty, "above 0 and at most 10")
        _demand(self.seed is None or 0 <= self.seed < 2**32 - 1, "seed", self.seed, "between 0 and 4294967294")


def _demand(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise MedmindError(f"{name} is {value} and must be {allowed}")


def chain(library: ModuleType, sampling: Sampling, vocabulary: int, vocab: Any = None) -> Any:
    """llama.cpp's sampler for these settings; the caller frees it with `llama_sampler_free`.

    Args:
        library: llama.cpp.
        sampling: the settings.
        vocabulary: its size.
        vocab: llama.cpp's vocabulary, which a grammar needs.

    Raises:
        MedmindError: the grammar is not valid.
    """
    grammar = None
    if sampling.grammar:
        grammar = library.llama_sampler_init_grammar(vocab, sampling.grammar.encode(), b"root")
        if not grammar:
            raise MedmindError("the grammar is not valid", "see llama.cpp's grammars/README.md")
    sampler = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())

    def add(part: Any) -> None:
        library.llama_sampler_chain_add(sampler, part)

    if grammar is not None:
        add(grammar)
    if sampling.repeat_penalty != 1:
        add(library.llama_sampler_init_penalties(vocabulary, _PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0))
    if sampling.temperature == 0:
        add(library.llama_sampler_init_greedy())
        return sampler
    if sampling.top_k:
        add(library.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        add(library.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        add(library.llama_sampler_init_min_p(sampling.min_p, 1))
    add(library.llama_sampler_init_temp(sampling.temperature))
    add(library.llama_sampler_init_dist(secrets.randbelow(2**32 - 1) if sampling.seed is None else sampling.seed))
    return sampler
