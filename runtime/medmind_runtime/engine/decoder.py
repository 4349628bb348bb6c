"""One llama.cpp context: its KV cache, which tokens lie in it, evaluating more of them, stopping in the middle.

Knows token ids and logits rows. Knows no files, text or sampling.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from medmind import llama
from medmind.errors import MedmindError
from medmind.signals import held
from medmind_runtime.engine.loading import KV_TYPES, KvType
from medmind_runtime.engine.weights import Weights
from medmind_runtime.interruption import Interrupted, never
from medmind_runtime.prompt import common

OUTPUT_ROWS = 64
"""Logits rows kept by one decode call: bounds the output buffer to 64 x vocabulary x 4 bytes."""
_SLOW_TOKEN = 0.05
"""Seconds per token from which a single token is worth interrupting: llama.cpp calls back once per graph node."""
_ABORTED = 2


@dataclass(frozen=True)
class Memory:
    """What llama.cpp has allocated, bytes.

    Attributes:
        weights: all tensors of the model (`llama_model_size`).
        kv_cache: keys and values of the whole context, as llama.cpp's log gives it when allocating (to 0.01 MiB).
        compute: scratch and output buffers, from the same log.
        repacked: second copies of weights in a layout for this CPU, from the same log; 0 when there are none.
    """

    weights: int
    kv_cache: int
    compute: int
    repacked: int = 0


def _allocated(lib: ModuleType, model: Any) -> Memory:
    """Told after a context is made, of which llama.cpp's log tells the rest."""
    buffers = {kind: llama.log.buffer_bytes(kind) for kind in ("model", "KV", "RS", "compute", "output")}
    return Memory(
        weights=int(lib.llama_model_size(model)),
        kv_cache=sum(buffers["KV"].values()) + sum(buffers["RS"].values()),
        compute=sum(buffers["compute"].values()) + sum(buffers["output"].values()),
        repacked=sum(size for name, size in buffers["model"].items() if name.endswith("REPACK")),
    )


class Decoder:
    """A context over a loaded model, which must outlive it.

    Attributes:
        context: tokens that the KV cache holds.
        token_seconds: how long a token took lately, set by the caller: single tokens that are slow can be interrupted.
    """

    def __init__(
        self,
        lib: ModuleType,
        weights: Weights,
        *,
        context: int,
        threads: int,
        batch: int,
        kv_type: KvType = "f16",
        flash: bool = True,
    ) -> None:
        if kv_type not in KV_TYPES:
            raise MedmindError(f"there is no KV cache type {kv_type}", f"use one of {', '.join(KV_TYPES)}")
        self._lib = lib
        self.handle: Any = None
        self._batch: Any = None
        self._cached: list[int] = []
        self._stop: Callable[[], bool] = never
        self._raised: BaseException | None = None
        self.token_seconds = 0.0
        params = lib.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = min(batch, context)
        params.n_outputs_max = min(OUTPUT_ROWS, params.n_batch)
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        params.type_k = params.type_v = KV_TYPES[kv_type].number
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO if flash else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        try:
            self._make(weights, params)
        except BaseException:  # also a signal's, which `held` raises when the context is there
            self.close()
            raise

    def _make(self, weights: Weights, params: Any) -> None:
        lib, model = self._lib, weights.handle
        with held():
            self.handle = lib.llama_init_from_model(model, params)
        if not self.handle:
            reason = llama.log.first_error() or "llama.cpp gives no reason"
            raise MedmindError(
                f"a context of {params.n_ctx} tokens could not be allocated: {reason}",
                "use a smaller --context or a smaller quant",
            )
        if weights.adapter is not None:
            one = (lib.llama_adapter_lora_p_ctypes * 1)(weights.adapter)
            lib.llama_set_adapters_lora(self.handle, one, 1, (ctypes.c_float * 1)(1.0))
        self.context = int(lib.llama_n_ctx(self.handle))
        self._vocabulary = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)))
        self._step = int(lib.llama_n_batch(self.handle))
        self._batch = lib.llama_batch_init(self._step, 0, 1)
        self._cache = lib.llama_get_memory(self.handle)
        self._on_abort = lib.ggml_abort_callback(self._should_abort)
        self._no_abort = lib.ggml_abort_callback()
        self.memory = _allocated(lib, model)

    def common(self, tokens: Sequence[int]) -> int:
        """How many of the first tokens lie in the KV cache."""
        return common(self._in_cache(), tokens)

    def _in_cache(self) -> list[int]:
        """Its tokens: `_cached` is written before decoding and may run ahead of the cache after an abort; llama.cpp's
        own last position is the truth.
        """
        return self._cached[: int(self._lib.llama_memory_seq_pos_max(self._cache, 0)) + 1]

    def keep_prefix(self, tokens: Sequence[int]) -> int:
        """Cut the KV cache back to its longest common prefix with `tokens`, less the last; returns its length."""
        same = min(self.common(tokens), max(0, len(tokens) - 1))
        if not self._lib.llama_memory_seq_rm(self._cache, 0, same, -1):  # a memory that cannot be cut in the middle
            self._lib.llama_memory_clear(self._cache, True)
            same = 0
        del self._cached[same:]
        return same

    def cut(self, length: int) -> bool:
        """Forget all but the first `length` tokens; False, and nothing is forgotten, where a memory cannot be cut."""
        if not self._lib.llama_memory_seq_rm(self._cache, 0, length, -1):
            return False
        del self._cached[length:]
        return True

    def logits(self, row: int) -> bytes:
        """A row of logits of the last evaluation: vocabulary x 4 bytes."""
        return ctypes.string_at(self._lib.llama_get_logits_ith(self.handle, row), 4 * self._vocabulary)

    def state(self) -> tuple[list[int], bytes]:
        """The tokens in the KV cache, and the cache as llama.cpp writes it."""
        buffer = (ctypes.c_uint8 * int(self._lib.llama_state_seq_get_size(self.handle, 0)))()
        written = int(self._lib.llama_state_seq_get_data(self.handle, buffer, len(buffer), 0))
        return self._in_cache(), bytes(buffer)[:written]

    def restore(self, tokens: Sequence[int], state: bytes) -> None:
        """Put back what `state` gave.

        Raises:
            MedmindError: it does not fit this context; the cache is empty then.
        """
        self._lib.llama_memory_clear(self._cache, True)
        self._cached.clear()
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if len(tokens) > self.context or not self._lib.llama_state_seq_set_data(self.handle, buffer, len(state), 0):
            self._lib.llama_memory_clear(self._cache, True)
            raise MedmindError(
                f"the saved state of {len(tokens)} tokens does not go into a context of {self.context}",
                "use a larger --context",
            )
        self._cached[:] = tokens

    def evaluate(
        self,
        tokens: Sequence[int],
        begin: int,
        *,
        first_output: int,
        cancel: Callable[[], bool] = never,
        take: Callable[[int, int], None] | None = None,
    ) -> None:
        """Run tokens through the model that follow those in the cache.

        Args:
            tokens: their ids.
            begin: position of the first, which is how many are in the cache.
            first_output: logits are kept from this position on.
            cancel: asked between batches and between graph nodes.
            take: called as take(position, row) for every position with logits while they lie in that row.

        Raises:
            Interrupted: cancelled; the cache holds some of the tokens.
            MedmindError: llama.cpp failed.
        """
        at, last = begin, begin + len(tokens)
        while at < last:
            if cancel():
                raise Interrupted
            end = min(at + self._step, last)
            if take:
                end = min(end, first_output if at < first_output else at + OUTPUT_ROWS)
            for row, position in enumerate(range(at, end)):
                self._batch.token[row] = tokens[position - begin]
                self._batch.pos[row] = position
                self._batch.n_seq_id[row] = 1
                self._batch.seq_id[row][0] = 0
                self._batch.logits[row] = position >= first_output
            self._batch.n_tokens = end - at
            self._cached[at:] = tokens[at - begin : end - begin]
            self._decode(cancel)
            if take:
                for position in range(max(at, first_output), end):
                    take(position, position - at)
            at = end

    def _decode(self, cancel: Callable[[], bool]) -> None:
        interruptible = self._batch.n_tokens > 1 or self.token_seconds > _SLOW_TOKEN
        with self._abortable(cancel) if interruptible else nullcontext():
            status = self._lib.llama_decode(self.handle, self._batch)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if status == _ABORTED:
            raise Interrupted
        if status != 0:
            reason = llama.log.first_error() or f"status {status}"
            raise MedmindError(f"llama.cpp could not evaluate the tokens: {reason}", "try a smaller --context")

    def _should_abort(self, _data: object) -> bool:
        """Called by llama.cpp between graph nodes, in the thread that called it; nothing may escape into C."""
        try:
            return self._stop()
        except BaseException as error:
            self._raised = error
            return True

    @contextmanager
    def _abortable(self, cancel: Callable[[], bool]) -> Iterator[None]:
        """Let `cancel`, Ctrl-C and what else ends the program end the computation inside."""
        with held() as noted:
            self._stop = lambda: bool(noted) or cancel()
            self._lib.llama_set_abort_callback(self.handle, self._on_abort, None)
            try:
                yield
            finally:
                self._lib.llama_set_abort_callback(self.handle, self._no_abort, None)
                self._stop = never

    def close(self) -> None:
        """Free the context; harmless when done twice."""
        if self._batch is not None:
            self._lib.llama_batch_free(self._batch)
        if self.handle:
            self._lib.llama_free(self.handle)
        self._batch = self.handle = None
