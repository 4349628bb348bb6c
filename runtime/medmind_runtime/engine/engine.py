"""The engine: one GGUF in memory, tokens in, tokens and probabilities out, through llama.cpp's C API.

Hands on to what does the work. Knows nothing of conversations, terminals or text streams.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from medmind.errors import MedmindError
from medmind_runtime.engine import generation, scoring, state
from medmind_runtime.engine.assembly import Parts, Settings, assemble
from medmind_runtime.engine.chat_format import ChatFormat
from medmind_runtime.engine.decoder import Decoder, Memory
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.engine.timings import Timings
from medmind_runtime.engine.vocabulary import Vocabulary
from medmind_runtime.interruption import Interrupted, never

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Engine", "Memory", "Sampling", "Timings"]


class Engine:
    """A loaded model with one KV cache. Not for use by two threads at once. Make one with `Engine.load`.

    Attributes:
        path: the GGUF file.
        metadata: its scalar metadata as text.
        vocabulary: its tokens.
        context: tokens that the KV cache holds, prompt and answer together.
        threads: compute threads.
        kv_type, adapter: as given to `load`.
        flash: whether attention is computed as flash attention.
        timings: of the last `generate`.
    """

    @classmethod
    def load(cls, path: Path, **settings: Unpack[Settings]) -> Self:
        """Load a GGUF file.

        Args:
            path: the file.
            settings: see `assembly.Settings`.

        Raises:
            MedmindError: no whole GGUF file, an architecture llama.cpp does not know, a context longer than the
                model's, too little memory, an adapter of another model, or llama-cpp-python missing.
        """
        parts = assemble(path, **settings)
        try:
            return cls(path, parts, adapter=settings.get("adapter"))
        except BaseException:
            parts.close()
            raise

    def __init__(self, path: Path, parts: Parts, *, adapter: Path | None) -> None:
        self._lib = parts.lib
        self._parts = parts
        self._decoder: Decoder | None = parts.decoder
        self.path = path
        self.adapter = adapter
        self.kv_type = parts.kv_type
        self.flash = parts.flash
        self.threads = parts.threads
        self.context = parts.decoder.context
        self.timings = Timings()
        self.metadata: Mapping[str, str] = parts.weights.metadata
        self.vocabulary = Vocabulary(parts.lib, parts.weights.handle)
        self._format = ChatFormat(path, self.metadata, self.vocabulary)

    def save_state(self, path: Path) -> int:
        """Write what is in the KV cache to a file that only its owner can read; returns the tokens in it.

        Raises:
            MedmindError: the file cannot be written.
        """
        tokens, cache = self._open.state()
        state.write(path, self._fingerprint(), tokens, cache)
        return len(tokens)

    def load_state(self, path: Path) -> int:
        """Take a saved KV cache, so that a prompt that begins with its tokens is not evaluated anew; returns how many.

        Raises:
            MedmindError: no state, a damaged one, one of another model, or longer than the context.
        """
        tokens, cache = state.read(path, self._fingerprint())
        self._open.restore(tokens, cache)
        return len(tokens)

    def _fingerprint(self) -> str:
        return state.fingerprint(self.path, self.adapter, self.kv_type, flash=self.flash, own=self._parts.own)

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
        return self._format.render(messages, add_generation_prompt=add_generation_prompt)

    @property
    def fallback_template(self) -> str:
        """The built-in chat template that stands in for a missing one; empty when not needed, or when none fits."""
        return self._format.fallback

    def encode(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of the rendered messages; text of control tokens inside a message stays text."""
        return self._format.encode(messages, add_generation_prompt=add_generation_prompt)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`, no BOS added; with `special`, text of control tokens becomes those tokens."""
        return self.vocabulary.tokenize(text, special=special)

    def least_tokens(self, text: str) -> int:
        """No fewer tokens than these are in a text, without tokenizing it; see `Vocabulary.least_tokens`."""
        return self.vocabulary.least_tokens(text)

    def detokenize(self, token: int) -> bytes:
        """The bytes that a token stands for, maybe a part of a character; none for control tokens."""
        return self.vocabulary.piece(token)

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (EOS, EOT and their like)."""
        return self.vocabulary.is_end(token)

    def evaluate(self, tokens: Sequence[int], *, cancel: Callable[[], bool] = never) -> None:
        """Take tokens into the KV cache that a prompt will begin with, so that `generate` finds them there.

        Those that lie there stay, and where none is missing all behind them too; else what the cache holds otherwise
        goes. Cancelled, it stops between the batches that `generate` with as many `known` tokens goes on with.

        Args:
            tokens: ids from the first position on, at least one and fewer than the context holds.
            cancel: asked between batches and between graph nodes; True ends it without an error.

        Raises:
            MedmindError: no token, too many, ids outside the vocabulary, or llama.cpp failed.
        """
        self._check(tokens, room=1)
        if self._open.common(tokens) < len(tokens):
            begin = self._open.keep_prefix(tokens)
            with suppress(Interrupted):
                self._open.evaluate(tokens[begin:], begin, first_output=len(tokens), cancel=cancel)

    def generate(
        self,
        tokens: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        cancel: Callable[[], bool] = never,
        known: int = 0,
        lookup_text: str = "",
    ) -> Iterator[int]:
        """Continue a prompt, token by token.

        The longest common prefix with what was evaluated before is taken from the KV cache. The end token is the last
        one yielded; an iteration that ends without one has reached `max_tokens`, the context, or was cancelled.

        Args:
            tokens: the prompt, at least one token.
            sampling: how to choose.
            max_tokens: how many at most.
            cancel: asked often, also during computations; True ends the iteration. Cache and engine stay usable.
            known: the first so many tokens are evaluated apart from the others. How tokens come together decides the
                last bits of logits: so they are the same whether or not `evaluate` was asked for these before.
            lookup_text: not before the model, but tokens are guessed from it too; the answer stays the same.

        Raises:
            MedmindError: a prompt that leaves no room in the context; ids outside the vocabulary.
        """
        self._check(tokens, room=1)
        self.timings = Timings(prompt_tokens=len(tokens))
        return generation.continued(
            self._parts,
            self.vocabulary,
            tokens,
            sampling=sampling,
            max_tokens=max_tokens,
            timings=self.timings,
            cancel=cancel,
            known=known,
            lookup_text=lookup_text,
        )

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
        self._check(tokens, room=0)
        return scoring.log_probs(self._lib, self._open, len(self.vocabulary), tokens, start, reuse=reuse)

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
        self._check(tokens, room=0)
        yield from scoring.logit_blocks(self._lib, self._open, len(self.vocabulary), tokens, start)

    def _check(self, tokens: Sequence[int], *, room: int) -> None:
        if not tokens:
            raise MedmindError("there are no tokens to evaluate")
        if len(tokens) + room > self._open.context:
            raise MedmindError(
                f"the prompt has {len(tokens)} tokens and the context holds {self.context}",
                "shorten it or use a larger --context",
            )
        if min(tokens) < 0 or max(tokens) >= len(self.vocabulary):
            raise MedmindError(f"a token id lies outside the vocabulary of {len(self.vocabulary)}")

    def close(self) -> None:
        """Free everything; harmless when done twice."""
        self._decoder = None
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
