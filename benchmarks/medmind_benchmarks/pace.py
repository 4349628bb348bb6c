"""The cell that measures speed, by llama-bench's method, and how soon a model answers.

Knows llama.cpp's contexts and batches at first hand: the engine's sampling and bookkeeping are no part of what
llama-bench times. Source: `test_prompt`, `test_gen` and `main` of llama.cpp's tools/llama-bench/llama-bench.cpp. A
context holds just the tokens of the test; a prompt is BOS and random tokens, logits for its last; generating starts
from BOS in an empty cache and goes on with random tokens, one by one; before the repetitions one whole prompt, or one
token, warms up.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from medmind import gguf_header, llama
from medmind.errors import MedmindError
from medmind_benchmarks.cell import Advance
from medmind_benchmarks.opening import BATCH
from medmind_runtime.config import KvType
from medmind_runtime.engine.loading import KV_TYPES
from medmind_runtime.engine.weights import Weights

_LOGICAL_BATCH = 2048
"""llama-bench's n_batch; BATCH is its n_ubatch."""


@dataclass(frozen=True)
class Request:
    """What to time.

    Attributes:
        prompt_tokens, generated_tokens: of one repetition.
        repeats: repetitions after the warm-up.
        turn: number of the round; each draws other random tokens, and has a result of its own.
    """

    kind: Literal["speed"]
    model: str
    kv_type: KvType
    threads: int
    prompt_tokens: int
    generated_tokens: int
    repeats: int
    turn: int


@dataclass(frozen=True)
class Result:
    """Tokens per second of each repetition, and seconds until a model was loaded and until its first token stood."""

    prompt: tuple[float, ...]
    generation: tuple[float, ...]
    load_seconds: float
    first_token_seconds: float


def measure(request: Request, advance: Advance) -> Result:
    """Load a model and time it; `advance` is called after loading and after each repetition.

    Raises:
        MedmindError: the model cannot be loaded, or llama.cpp cannot compute.
    """
    lib = llama.load()
    path = Path(request.model)
    draw = random.Random(request.turn)
    began = time.perf_counter()
    weights = Weights(lib, gguf_header.read(path))
    try:
        bench = _Bench(lib, weights, request, draw)
        with bench.context(request.prompt_tokens + request.generated_tokens) as context:
            loaded = time.perf_counter() - began
            advance()
            first = _seconds(lambda: bench.first_token(context))
        with bench.context(request.prompt_tokens) as context:
            bench.read(context)
            prompt = []
            for _ in range(request.repeats):
                bench.forget(context)
                prompt.append(request.prompt_tokens / _seconds(lambda: bench.read(context)))
                advance()
        with bench.context(request.generated_tokens) as context:
            bench.generate(context, 1)
            generation = []
            for _ in range(request.repeats):
                bench.forget(context)
                seconds = _seconds(lambda: bench.generate(context, request.generated_tokens))
                generation.append(request.generated_tokens / seconds)
                advance()
    finally:
        weights.close()
    return Result(tuple(prompt), tuple(generation), loaded, first)


def steps(repeats: int) -> int:
    """How often `advance` is called."""
    return 1 + 2 * repeats


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class _Bench:
    def __init__(self, lib: ModuleType, weights: Weights, request: Request, draw: random.Random) -> None:
        self._lib, self._weights, self._request, self._draw = lib, weights, request, draw
        vocab = lib.llama_model_get_vocab(weights.handle)
        self._vocabulary = int(lib.llama_vocab_n_tokens(vocab))
        self._bos = int(lib.llama_vocab_bos(vocab)) if lib.llama_vocab_get_add_bos(vocab) else None

    @contextmanager
    def context(self, tokens: int) -> Iterator[Any]:
        """A context of llama.cpp that holds `tokens` tokens."""
        lib, params = self._lib, self._lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = tokens, _LOGICAL_BATCH, BATCH
        params.n_threads = params.n_threads_batch = self._request.threads
        params.type_k = params.type_v = KV_TYPES[self._request.kv_type].number
        params.swa_full = False
        handle = lib.llama_init_from_model(self._weights.handle, params)
        if not handle:
            reason = llama.log.first_error() or "llama.cpp gives no reason"
            raise MedmindError(f"a context of {tokens} tokens could not be allocated: {reason}")
        try:
            yield handle
        finally:
            lib.llama_free(handle)

    def forget(self, context: Any) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(context), False)

    def _tokens(self, count: int) -> list[int]:
        found = [self._draw.randrange(self._vocabulary) for _ in range(count)]
        if self._bos is not None:
            found[0] = self._bos
        return found

    def read(self, context: Any) -> None:
        """Compute a prompt."""
        tokens = self._tokens(self._request.prompt_tokens)
        for begin in range(0, len(tokens), _LOGICAL_BATCH):
            self._decode(context, tokens[begin : begin + _LOGICAL_BATCH])
        self._lib.llama_synchronize(context)

    def first_token(self, context: Any) -> int:
        """Compute a prompt and choose the most likely token after it."""
        self.read(context)
        logits = self._lib.llama_get_logits_ith(context, -1)
        return max(range(self._vocabulary), key=logits.__getitem__)

    def generate(self, context: Any, count: int) -> None:
        """Compute `count` tokens one by one."""
        lib = self._lib
        one = (lib.llama_token * 1)()
        for token in self._tokens(count):
            one[0] = token
            if lib.llama_decode(context, lib.llama_batch_get_one(one, 1)) != 0:
                raise _failed()
            lib.llama_synchronize(context)

    def _decode(self, context: Any, tokens: Sequence[int]) -> None:
        held = (self._lib.llama_token * len(tokens))(*tokens)
        if self._lib.llama_decode(context, self._lib.llama_batch_get_one(held, len(tokens))) != 0:
            raise _failed()


def _failed() -> MedmindError:
    return MedmindError(f"llama.cpp could not compute: {llama.log.first_error() or 'it gives no reason'}")
