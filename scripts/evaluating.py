"""Tokens evaluated by llama.cpp alone, with the switches that chat's engine does not have; for scripts that measure."""

import ctypes
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from medmind import llama
from medmind_runtime.engine.loading import KV_TYPES


class Model:
    """Weights on the CPU; `repack`: laid out anew for it, as llama.cpp does where it can."""

    def __init__(self, path: Path, *, repack: bool = True) -> None:
        self.lib = llama.load()
        params = self.lib.llama_model_default_params()
        params.use_extra_bufts, params.n_gpu_layers = repack, 0
        self.handle = self.lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocabulary = int(self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.handle)))

    def chance(self, count: int) -> list[int]:
        """Token ids, the same ones each time."""
        order = random.Random(3)
        return [order.randrange(5, self.vocabulary) for _ in range(count)]

    def close(self) -> None:
        """Free them; no context may be left."""
        self.lib.llama_model_free(self.handle)


class Context:
    """A KV cache for so many tokens, evaluated in steps of at most `step`; keys and values may be of two types."""

    def __init__(
        self, model: Model, *, size: int, step: int, threads: int, keys: str, values: str, flash: bool
    ) -> None:
        self.model, self.lib, self._step = model, model.lib, step
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = size, step, step, 1
        params.n_threads = params.n_threads_batch = threads
        params.type_k, params.type_v = KV_TYPES[keys].number, KV_TYPES[values].number
        params.flash_attn_type, params.no_perf = int(flash), True
        self.handle = self.lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise SystemExit(f"llama.cpp cannot keep keys in {keys} and values in {values} so")
        self._batch = self.lib.llama_batch_init(step, 0, 1)
        self.clock: Callable[[], float] = time.thread_time if threads == 1 else time.perf_counter

    def set_threads(self, threads: int) -> None:
        """Of what is evaluated from now on."""
        self.lib.llama_set_n_threads(self.handle, threads, threads)

    def evaluate(self, tokens: Sequence[int], begin: int, *, every_logit: bool = False) -> float:
        """Seconds for tokens at positions from `begin` on, what lay there and behind forgotten.

        Args:
            tokens: their ids.
            begin: position of the first.
            every_logit: logits of each token of a step are computed, not of its last alone.
        """
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.handle), 0, begin, -1)
        started = self.clock()
        for first in range(0, len(tokens), self._step):
            some, batch = tokens[first : first + self._step], self._batch
            for row, token in enumerate(some):
                batch.token[row], batch.pos[row] = token, begin + first + row
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
                batch.logits[row] = every_logit or row == len(some) - 1
            batch.n_tokens = len(some)
            if self.lib.llama_decode(self.handle, batch):
                raise SystemExit("llama.cpp could not evaluate the tokens")
        return self.clock() - started

    def logits(self, row: int) -> bytes:
        """Of a row of the last step, as they lie in memory."""
        return ctypes.string_at(self.lib.llama_get_logits_ith(self.handle, row), 4 * self.model.vocabulary)

    def close(self) -> None:
        """Free it; the model stays."""
        self.lib.llama_batch_free(self._batch)
        self.lib.llama_free(self.handle)
