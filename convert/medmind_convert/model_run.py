"""A GGUF run over chunks of tokens, with a look at every matrix product on the way. Knows llama.cpp's contexts.

Knows neither what is looked for nor where the text comes from; generates nothing.
"""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medmind import llama
from medmind.errors import MedmindError
from medmind.signals import held
from medmind_convert import graph

Watch = Callable[[str, "Product"], None]
"""Is told of a matrix product: the weight's name as in the file, and the product."""


class Product:
    """One matrix product of the graph, just computed; valid only while `Watch` is called."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def activations(self) -> NDArray[np.float32]:
        """What entered the product, shape (tokens, columns of the weight), in memory of its own."""
        source = self._node.src[1]
        head = source.contents
        if head.nb[1] != 4 * head.ne[0]:
            raise MedmindError("llama.cpp laid out an activation in a way that medmind does not know")
        rows = head.ne[1] * head.ne[2] * head.ne[3]
        return graph.read(ctypes.cast(source, ctypes.c_void_p), (rows, head.ne[0]))


class ModelRun:
    """A loaded model with one context; a context manager.

    Args:
        path: the GGUF.
        length: tokens of a chunk.
        threads: compute threads.
        watch: is told of every product of a weight with the whole chunk; None looks at nothing and costs nothing.

    Raises:
        MedmindError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path, *, length: int, threads: int, watch: Watch | None = None) -> None:
        self._lib = llama.load()
        self._watch = watch
        self._failure: BaseException | None = None
        self._ended: Sequence[object] = ()
        llama.log.mark()
        params = self._lib.llama_model_default_params()
        self._context = None
        with held():  # the log is a callback too
            self._model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise MedmindError(f"llama.cpp cannot load {path}: {llama.log.first_error() or 'no reason given'}")
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.length = length
        self.vocabulary = int(self._lib.llama_vocab_n_tokens(self._vocab))
        context = self._lib.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = length
        context.n_threads = context.n_threads_batch = threads
        if watch is not None:
            self._callback = self._lib.ggml_backend_sched_eval_callback(self._look)
            context.cb_eval = self._callback
        with held():
            self._context = self._lib.llama_init_from_model(self._model, context)
        if not self._context:
            self._lib.llama_model_free(self._model)
            raise MedmindError(
                f"llama.cpp cannot run {path} over {length} tokens: {llama.log.first_error() or 'is there memory?'}"
            )
        self._batch = self._lib.llama_batch_init(length, 0, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    @property
    def bos(self) -> int | None:
        """The token that a text begins with, where the model wants one."""
        return int(self._lib.llama_vocab_bos(self._vocab)) if self._lib.llama_vocab_get_add_bos(self._vocab) else None

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids with what the model wants at the beginning; `special` reads control tokens in the text."""
        data = text.encode()
        room = len(data) + 16
        while True:
            buffer = (self._lib.llama_token * room)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), buffer, room, True, special)
            if count >= 0:
                return list(buffer[:count])
            room = -count

    def run(self, tokens: Sequence[int]) -> None:
        """Compute a chunk from an empty cache, every position's output too.

        A signal ends it before the next product is looked at, and is handled once llama.cpp has returned.

        Raises:
            MedmindError: llama.cpp failed; or whatever `watch` or the handler of a signal raised.
        """
        if len(tokens) > self.length:
            raise ValueError(f"{len(tokens)} tokens in a context of {self.length}")
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = True
        self._failure = None
        with held() as self._ended:
            code = self._lib.llama_decode(self._context, batch)
            self._lib.llama_synchronize(self._context)
        if self._failure is not None:
            raise self._failure
        if code != 0:
            raise MedmindError(f"llama.cpp could not compute a chunk of {len(tokens)} tokens (code {code})")

    def _look(self, address: int, ask: bool, _data: object) -> bool:
        """ggml's eval callback: whether a node is wanted, then the node itself; false there ends the computation.

        Nothing may leave it: ctypes prints what a callback raises and goes on. Signals are held meanwhile, as one that
        lands before the `try` would get away.
        """
        if self._ended or self._failure is not None:
            return ask  # the next node there is, to say false of it
        try:
            node = ctypes.cast(address, ctypes.POINTER(graph.TensorHead)).contents
            if self._watch is None:
                return not ask
            if graph.operation(node) != "MUL_MAT" or node.src[1].contents.type != self._lib.GGML_TYPE_F32:
                return not ask
            # a backend and the number of a copy may stand around the name: CUDA0#blk.0.attn_q.weight#0
            name = node.src[0].contents.name.decode()
            name = name.split("#")[1] if "#" in name else name
            if not name.endswith(".weight"):
                return not ask
            if not ask:
                self._watch(name, Product(node))
        except BaseException as error:
            self._failure = error
            return ask
        return True
