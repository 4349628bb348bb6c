"""What a small sentence encoder says of a text: everyday talk, a harmless question, an emergency, or self-harm.

Knows its file, which scripts/fit_encoder.py and scripts/fit_classifier.py make, and how llama.cpp computes it. No bound
and no rule: see leaning.py.
"""

import math
import os
import threading
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from medmind import llama
from medmind.errors import MedmindError
from medmind_runtime.engine.vocabulary import Vocabulary

KINDS = ("none", "everyday", "emergency", "self_harm")
"""What a text is taken for, in the order of the classifier's outputs; `none` is a question that needs no help now."""
FILE = Path(__file__).with_name("classifier.gguf")
_KEPT = 512
"""Texts whose verdict is remembered: a question and its sentences are asked for again with every turn."""


class Encoder:
    """The encoder in memory, for as long as the process lives; from any thread.

    Args:
        path: a GGUF of llama.cpp's architecture `bert`.
        head: whether its classification head, with an output for each of `KINDS`, is applied; otherwise the outputs are
            the last hidden state of the first token.

    Raises:
        MedmindError: llama.cpp cannot load it, or its head has other outputs.
    """

    def __init__(self, path: Path, *, head: bool) -> None:
        lib = self._lib = llama.load()
        llama.log.mark()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        name = str(path).encode("utf-8") if os.name == "nt" else os.fsencode(path)
        model = lib.llama_model_load_from_file(name, params)
        if not model:
            reason = llama.log.first_error() or "llama.cpp gives no reason"
            raise MedmindError(f"{path} cannot be used: {reason}", "install medmind again")
        try:
            self.size = int(lib.llama_model_n_cls_out(model) if head else lib.llama_model_n_embd(model))
            if head and self.size != len(KINDS):
                outputs = f"it tells {self.size} kinds and not {len(KINDS)}"
                raise MedmindError(f"{path} cannot be used: {outputs}", "install medmind again")
            self._longest = int(lib.llama_model_n_ctx_train(model))
            self._vocabulary = Vocabulary(lib, model)
            settings = lib.llama_context_default_params()
            settings.n_ctx = settings.n_batch = settings.n_ubatch = self._longest
            settings.n_seq_max = 1
            settings.embeddings = True
            settings.pooling_type = lib.LLAMA_POOLING_TYPE_RANK if head else lib.LLAMA_POOLING_TYPE_CLS
            settings.n_threads = settings.n_threads_batch = 1  # beside a model that loads or answers, more would wait
            settings.no_perf, settings.offload_kqv, settings.op_offload = True, False, False
            self._context: Any = lib.llama_init_from_model(model, settings)
            if not self._context:
                raise MedmindError(f"there is no memory for {path}", "close other programs")
        except BaseException:
            lib.llama_model_free(model)
            raise
        self._batch = lib.llama_batch_init(self._longest, 0, 1)
        self._one_at_a_time = threading.Lock()

    def outputs(self, text: str) -> list[list[float]]:
        """Of a plain text (`words.plain`): `size` numbers for each part of it that can be read at once, mostly one."""
        first, *ids, last = self._vocabulary.tokenize(text, special=False, ends=True)
        step = self._longest - 2
        with self._one_at_a_time:
            return [self._computed([first, *ids[at : at + step], last]) for at in range(0, max(1, len(ids)), step)]

    def _computed(self, ids: Sequence[int]) -> list[float]:
        batch = self._batch
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, True
        status = int(self._lib.llama_encode(self._context, batch))
        if status:
            raise MedmindError(f"llama.cpp could not judge a text (status {status})", "close other programs")
        found = self._lib.llama_get_embeddings_seq(self._context, 0)
        return [float(found[place]) for place in range(self.size)]


class Classifier:
    """The encoder with its head.

    Args:
        path: a GGUF whose head has one output for each of `KINDS`.

    Raises:
        MedmindError: it cannot be loaded, or has other outputs.
    """

    def __init__(self, path: Path) -> None:
        self._encoder = Encoder(path, head=True)
        self.log_probabilities = lru_cache(maxsize=_KEPT)(self._log_probabilities)

    def _log_probabilities(self, text: str) -> tuple[float, ...]:
        """Natural logarithms of the probability of each of `KINDS`.

        Args:
            text: plain; of one too long to be read at once the most alarming part counts.
        """
        return max(map(_log_softmax, self._encoder.outputs(text)), key=alarm_odds)


def alarm_odds(said: Sequence[float]) -> float:
    """Log-odds of an emergency or self-harm against the others, by log-probabilities of `KINDS`."""
    none, everyday, emergency, self_harm = said
    return _added(emergency, self_harm) - _added(none, everyday)


def _added(one: float, other: float) -> float:
    high = max(one, other)
    return high + math.log(math.exp(one - high) + math.exp(other - high))


def _log_softmax(outputs: Sequence[float]) -> tuple[float, ...]:
    high = max(outputs)
    total = high + math.log(math.fsum(math.exp(one - high) for one in outputs))
    return tuple(one - total for one in outputs)


_one_at_a_time = threading.Lock()


def classifier() -> Classifier:
    """The one that medmind carries; loaded once, whichever thread asks first."""
    with _one_at_a_time:
        return _carried()


@cache
def _carried() -> Classifier:
    return Classifier(FILE)
