"""The engine: one GGUF in memory, tokens in, tokens and probabilities out, through llama.cpp's C API.

Knows loading, generating and scoring. Knows nothing of conversations, terminals or text streams.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from medmind import gguf_header, llama
from medmind.errors import MedmindError
from medmind_runtime import state
from medmind_runtime.decoder import KV_TYPES, OUTPUT_ROWS, Decoder, KvType, Memory, prompt_step
from medmind_runtime.forecast import demand_room
from medmind_runtime.interruption import Interrupted, never
from medmind_runtime.loading import GpuLayers, LoadMode
from medmind_runtime.prompt import Encoder
from medmind_runtime.sampling import Sampling, chain
from medmind_runtime.speculation import Ahead, Exact
from medmind_runtime.threads import physical_cores
from medmind_runtime.timings import Timings
from medmind_runtime.vocabulary import Vocabulary
from medmind_runtime.weights import Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medmind.template import Template

__all__ = ["Engine", "Memory", "Sampling", "Timings"]

_DEFAULT_CONTEXT = 4096


MOST_THREADS = 512
"""Source: GGML_MAX_N_THREADS of ggml.h."""


class Engine:
    """A loaded model with one KV cache. Not for use by two threads at once. Make one with `Engine.load`.

    Attributes:
        path: the GGUF file.
        metadata: its scalar metadata as text.
        vocabulary: its tokens.
        context: tokens that the KV cache holds, prompt and answer together.
        threads: compute threads.
        kv_type, adapter: as given to `load`.
        timings: of the last `generate`.
    """

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        context: int | None = None,
        threads: int | None = None,
        batch: int | None = None,
        kv_type: KvType = "f16",
        load_mode: LoadMode = "auto",
        adapter: Path | None = None,
        gpu_layers: GpuLayers = "auto",
        progress: Callable[[float], bool] | None = None,
        check_memory: bool = True,
        lookup: bool = False,
    ) -> Self:
        """Load a GGUF file.

        Args:
            path: the file.
            context: KV cache size in tokens; None takes the model's own length, at most 4096. llama.cpp rounds up.
            threads: None takes the physical cores.
            batch: prompt tokens evaluated in one step; None takes 512, or fewer where one matrix product over them
                would keep Ctrl-C waiting.
            kv_type: how keys and values are kept; q8_0 takes 53 %, q4_0 28 % of f16.
            load_mode: how weights come into memory; see `weights.LoadMode`.
            adapter: a LoRA GGUF put on the model.
            gpu_layers: layers on the GPU; see `weights.GpuLayers`.
            progress: called with 0 to 1 while the weights load; False ends it.
            check_memory: refuse a model that `forecast` says will not fit; not asked where layers go to a GPU.
            lookup: guess tokens from prompt and answer and evaluate them together, where that gives the very bits of
                single tokens: the same answers, sooner.

        Raises:
            MedmindError: no whole GGUF file, an architecture llama.cpp does not know, a context longer than the
                model's, too little memory, an adapter of another model, or llama-cpp-python missing.
        """
        return cls(
            path,
            context=context,
            thread_count=threads,
            batch=batch,
            kv_type=kv_type,
            load_mode=load_mode,
            adapter=adapter,
            gpu_layers=gpu_layers,
            progress=progress,
            check_memory=check_memory,
            lookup=lookup,
        )

    def __init__(
        self,
        path: Path,
        *,
        context: int | None,
        thread_count: int | None,
        batch: int | None,
        kv_type: KvType,
        load_mode: LoadMode,
        adapter: Path | None,
        gpu_layers: GpuLayers,
        progress: Callable[[float], bool] | None,
        check_memory: bool,
        lookup: bool,
    ) -> None:
        self._weights: Weights | None = None
        self._decoder: Decoder | None = None
        gguf_header.check(path)
        if any(value is not None and value < 1 for value in (batch, thread_count, context)):
            raise MedmindError("context, threads and batch must be 1 or more")
        if thread_count is not None and thread_count > MOST_THREADS:
            raise MedmindError(f"{thread_count} threads are more than llama.cpp takes", f"give at most {MOST_THREADS}")
        self.path = path
        self.adapter = adapter
        self.kv_type = kv_type
        self.threads = thread_count or physical_cores()
        self.timings = Timings()
        self._lib = lib = llama.load()
        self._template: Template | None = None
        self._encoders: dict[bool, Encoder] = {}
        llama.log.mark()
        header = gguf_header.scalars(path)
        batch = batch or prompt_step(header, self.threads)
        if check_memory and kv_type in KV_TYPES and not (gpu_layers and lib.llama_supports_gpu_offload()):
            trained = int(header.get(f"{header.get('general.architecture')}.context_length", _DEFAULT_CONTEXT))
            wanted = context or min(trained, _DEFAULT_CONTEXT)
            demand_room(path, context=wanted, batch=batch, kv_type=kv_type)
        try:
            self._weights = weights = Weights(
                lib, path, load_mode=load_mode, gpu_layers=gpu_layers, adapter=adapter, progress=progress
            )
            self.metadata: Mapping[str, str] = weights.metadata
            self.vocabulary = Vocabulary(lib, weights.handle)
            self._decoder = Decoder(
                lib,
                weights,
                context=self._wanted(weights, context),
                threads=self.threads,
                batch=batch,
                kv_type=kv_type,
            )
        except BaseException:
            self.close()
            raise
        self.context = self._decoder.context
        self._exact = Exact(hopeless=True)
        if lookup and adapter is None and not weights.gpu_layers:
            self._exact = Exact.of(self.metadata, threads=self.threads, kv_type=kv_type)

    def save_state(self, path: Path) -> int:
        """Write what is in the KV cache to a file that only its owner can read; returns the tokens in it.

        Raises:
            MedmindError: the file cannot be written.
        """
        tokens, cache = self._open.state()
        state.write(path, state.fingerprint(self.path, self.adapter, self.kv_type), tokens, cache)
        return len(tokens)

    def load_state(self, path: Path) -> int:
        """Take a saved KV cache, so that a prompt that begins with its tokens is not evaluated anew; returns how many.

        Raises:
            MedmindError: no state, a damaged one, one of another model, or longer than the context.
        """
        tokens, cache = state.read(path, state.fingerprint(self.path, self.adapter, self.kv_type))
        self._open.restore(tokens, cache)
        return len(tokens)

    def _wanted(self, weights: Weights, context: int | None) -> int:
        trained = int(self._lib.llama_model_n_ctx_train(weights.handle))
        if context is not None and context > trained:
            raise MedmindError(
                f"a context of {context} tokens is longer than this model's {trained}",
                f"use --context {trained} or less",
            )
        return context or min(trained, _DEFAULT_CONTEXT)

    @property
    def _open(self) -> Decoder:
        if self._decoder is None:
            raise RuntimeError("the engine is closed")
        return self._decoder

    @property
    def memory(self) -> Memory:
        """What llama.cpp has allocated for this model and context."""
        return self._open.memory

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """The prompt text of the model's own chat template; special tokens are in it as text.

        Raises:
            MedmindError: the GGUF carries no template, or the template refuses the messages.
        """
        if self._template is None:
            from medmind.template import Template

            words = self.vocabulary
            self._template = Template(
                self._template_source(), bos_token=words.text(words.bos), eos_token=words.text(words.eos)
            )
        return self._template.render(messages, add_generation_prompt=add_generation_prompt)

    def _template_source(self) -> str:
        from medmind.template import FALLBACKS

        own = self.metadata.get("tokenizer.chat_template", "")
        if not own and not self.fallback_template:
            raise MedmindError(
                f"{self.path} carries no chat template", "convert it again from a base whose tokenizer has one"
            )
        return own or FALLBACKS[self.fallback_template][1]

    @property
    def fallback_template(self) -> str:
        """The built-in chat template that stands in for a missing one; empty when not needed, or when none fits."""
        return "" if self.metadata.get("tokenizer.chat_template") else self.vocabulary.fallback()

    def encode(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of the rendered messages; text of control tokens inside a message stays text."""
        if add_generation_prompt not in self._encoders:
            self._encoders[add_generation_prompt] = Encoder(
                render=lambda rows: self.render(rows, add_generation_prompt=add_generation_prompt),
                tokenize=lambda text, special: self.tokenize(text, special=special),
                controls=self.vocabulary.controls,
            )
        return self._encoders[add_generation_prompt].encode(messages)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`, no BOS added; with `special`, text of control tokens becomes those tokens."""
        return self.vocabulary.tokenize(text, special=special)

    def detokenize(self, token: int) -> bytes:
        """The bytes that a token stands for, maybe a part of a character; none for control tokens."""
        return self.vocabulary.piece(token)

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (EOS, EOT and their like)."""
        return self.vocabulary.is_end(token)

    def generate(
        self, tokens: Sequence[int], *, sampling: Sampling, max_tokens: int, cancel: Callable[[], bool] = never
    ) -> Iterator[int]:
        """Continue a prompt, token by token.

        The longest common prefix with what was evaluated before is taken from the KV cache. The end token is the last
        one yielded; an iteration that ends without one has reached `max_tokens`, the context, or was cancelled.

        Args:
            tokens: the prompt, at least one token.
            sampling: how to choose.
            max_tokens: how many at most.
            cancel: asked often, also during computations; True ends the iteration. Cache and engine stay usable.

        Raises:
            MedmindError: a prompt that leaves no room in the context; ids outside the vocabulary.
        """
        decoder = self._open
        self._check(tokens, room=1)
        self.timings = timings = Timings(prompt_tokens=len(tokens))
        started = time.perf_counter()
        sampler = None
        ahead = Ahead(decoder, tokens, self._exact, timings, cancel)
        sequence = list(tokens)
        try:
            timings.reused = decoder.keep_prefix(tokens)
            decoder.evaluate(tokens[timings.reused :], timings.reused, first_output=len(tokens) - 1, cancel=cancel)
            timings.prompt_seconds = time.perf_counter() - started
            sampler = chain(self._lib, sampling, len(self.vocabulary), self.vocabulary.handle)
            row = -1
            for left in reversed(range(min(max_tokens, self.context - len(tokens)))):
                if cancel():
                    return
                begun = time.perf_counter()
                if timings.generated_tokens:
                    row = ahead.row(sequence, left)
                token = int(self._lib.llama_sampler_sample(sampler, decoder.handle, row))
                sequence.append(token)
                spent = time.perf_counter() - begun
                if row < 1:  # else it was evaluated with the tokens before it
                    decoder.token_seconds = spent
                timings.generation_seconds += spent
                timings.generated_tokens += 1
                yield token
                if self.is_end(token):
                    break
            ahead.settle(len(sequence) - 1)
        except Interrupted:
            return
        finally:
            if self._decoder is decoder:
                decoder.keep_prefix(sequence)  # without what was guessed and not said
            if sampler is not None:
                self._lib.llama_sampler_free(sampler)

    def log_probs(self, tokens: Sequence[int], start: int, *, reuse: bool = False) -> "NDArray[np.float64]":
        """Natural-log p(tokens[i] | tokens[:i]) for i in start..len-1.

        Log-softmax in float64 over the model's float32 logits, in steps that keep at most 64 rows of logits.

        Args:
            tokens: ids from the first position on.
            start: the first position that is scored.
            reuse: take a prompt that was scored before, with another continuation, from the KV cache; what lies there
                was computed in the same steps, so that the result is the same to the bit. Else evaluate it afresh.

        Returns:
            Shape (len(tokens) - start,).

        Raises:
            MedmindError: more tokens than the context, or `start` outside 1..len.
        """
        import numpy as np

        decoder = self._open
        self._check(tokens, room=0)
        if not 1 <= start <= len(tokens):
            raise MedmindError(f"start is {start} and must be between 1 and {len(tokens)}")
        result = np.empty(len(tokens) - start, dtype=np.float64)

        def take(position: int, row: int) -> None:
            logits = np.ctypeslib.as_array(self._lib.llama_get_logits_ith(decoder.handle, row), (len(self.vocabulary),))
            wide = logits.astype(np.float64)
            top = wide.max()
            result[position + 1 - start] = wide[tokens[position + 1]] - top - np.log(np.exp(wide - top).sum())

        done = decoder.keep_prefix(tokens[:start] if reuse else ())
        if done < start - 1:
            done = decoder.keep_prefix(())
        decoder.evaluate(tokens[done:-1], done, first_output=start - 1, take=take)
        return result

    def logit_blocks(self, tokens: Sequence[int], start: int) -> "Iterator[NDArray[np.float32]]":
        """The model's logits for tokens[start:], block by block; evaluated afresh, never from the KV cache.

        Yields:
            Shape (rows, vocabulary), at most 64 rows, in order: the next row is the distribution of the next token.
            Each block lies in llama.cpp's own memory and is gone when the next one is asked for. Two engines with one
            context size and one `batch` yield the same numbers of rows for the same tokens. The last token is evaluated
            too, though nobody asks for its row: kernels of repacked weights take rows by fours and what is left
            otherwise, and llama-perplexity evaluates whole chunks.

        Raises:
            MedmindError: more tokens than the context, or `start` outside 1..len.
        """
        import numpy as np

        decoder = self._open
        self._check(tokens, room=0)
        if not 1 <= start <= len(tokens):
            raise MedmindError(f"start is {start} and must be between 1 and {len(tokens)}")
        decoder.keep_prefix(())
        decoder.evaluate(tokens[: start - 1], 0, first_output=start - 1)
        step = min(OUTPUT_ROWS, int(self._lib.llama_n_batch(decoder.handle)))
        for begin in range(start - 1, len(tokens) - 1, step):
            end = min(begin + step, len(tokens))
            decoder.evaluate(tokens[begin:end], begin, first_output=begin)
            first = self._lib.llama_get_logits(decoder.handle)
            yield np.ctypeslib.as_array(first, (min(end, len(tokens) - 1) - begin, len(self.vocabulary)))

    def _check(self, tokens: Sequence[int], *, room: int) -> None:
        if not tokens:
            raise MedmindError("there are no tokens to evaluate")
        if len(tokens) + room > self.context:
            raise MedmindError(
                f"the prompt has {len(tokens)} tokens and the context holds {self.context}",
                "shorten it or use a larger --context",
            )
        if min(tokens) < 0 or max(tokens) >= len(self.vocabulary):
            raise MedmindError(f"a token id lies outside the vocabulary of {len(self.vocabulary)}")

    def close(self) -> None:
        """Free everything; harmless when done twice."""
        if self._decoder is not None:
            self._decoder.close()
        if self._weights is not None:
            self._weights.close()
        self._decoder = self._weights = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
