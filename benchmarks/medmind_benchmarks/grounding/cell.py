"""The cell that scores held-out answers behind the prompts that medmind-chat would build, with a library or without.

Knows one model and one library at most; compares nothing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medmind import turns
from medmind_benchmarks.grounding import items as item_files
from medmind_benchmarks.grounding.items import Item
from medmind_benchmarks.likelihood import language_of, log_likelihood
from medmind_benchmarks.opening import opened
from medmind_runtime.config import ChatConfig, KvType
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.exchange import DoesNotFit
from medmind_runtime.guard import Guard
from medmind_runtime.library.index import Library
from medmind_runtime.safety.careful import Careful

if TYPE_CHECKING:
    from medmind_runtime.engine.engine import Engine

State = Literal["scored", "nothing found", "the prompt does not fit", "no passage fits", "spells a control token"]


@dataclass(frozen=True)
class Request:
    """What to score.

    Attributes:
        model: path of the GGUF.
        library: path of the library; empty for none.
        items: path of a file that `items.write` wrote.
        context: tokens; None takes what medmind-chat takes.
        kv_type: of the KV cache; `cache_type` of the file is what medmind-chat takes.
    """

    kind: Literal["grounding"]
    model: str
    library: str
    items: str
    context: int | None
    threads: int
    kv_type: KvType


@dataclass(frozen=True)
class Scored:
    """What the model makes of one item.

    Attributes:
        state: `scored`, or why there are no figures.
        passages: how many stand in the prompt.
        prompt: its tokens.
        tokens: of the answer, those scored; the end token of a whole answer is one of them.
        cut: whether the answer has more tokens than chat keeps room for.
        nll: summed over them, in nats.
        options: Σ ln p of every option's tokens behind the same prompt, without an end token; empty without a choice.
        alone: without a library, the same behind a prompt without a question; else empty.
        lengths: UTF-8 bytes of the options.
    """

    state: State
    passages: int = 0
    prompt: int = 0
    tokens: int = 0
    cut: bool = False
    nll: float = 0.0
    options: tuple[float, ...] = ()
    alone: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """Every item, in order.

    Attributes:
        context: tokens that the engine held.
        reserve: of those, kept free for an answer; longer answers are scored so far.
        token_digest: over all ids of prompts and answers.
        seconds: the model's loading left out.
    """

    context: int
    reserve: int
    scored: tuple[Scored, ...]
    token_digest: str
    seconds: float


def measure(request: Request, advance: Callable[[], None]) -> Result:
    """Do what `request` asks; `advance` is called after every item.

    Raises:
        MedmindError: model or library cannot be opened, or the model gives no numbers.
    """
    found = item_files.read(Path(request.items))
    with (
        Library(Path(request.library)) if request.library else nullcontext() as library,
        opened(
            Path(request.model),
            context=request.context,
            threads=request.threads,
            kv_type=request.kv_type,
            as_chat=True,
        ) as engine,
    ):
        return score(engine, Careful(library), found, advance)


def score(engine: "Engine", guard: Guard, found: Sequence[Item], advance: Callable[[], None]) -> Result:
    """Score the items behind the prompts that a conversation with this guard would build, each as a first question.

    Args:
        engine: its context is that of the conversation.
        guard: gives the passages; one with no instructions stands for chat without a library.
        found: the items.
        advance: called after every item.

    Raises:
        MedmindError: a likelihood that is not a number; names the item.
    """
    began = time.perf_counter()
    system = engine.metadata.get("medmind.system_prompt", "")
    chat = Conversation(engine, system=system, sampling=Sampling(), max_tokens=ChatConfig.max_tokens, guard=guard)
    scorer = _Scorer(engine, chat, system, grounded=bool(guard.instructions))
    scored = []
    for item in found:
        scored.append(scorer.item(item))
        advance()
    digest = f"sha256:{scorer.digest.hexdigest()}"
    return Result(engine.context, scorer.reserve, tuple(scored), digest, time.perf_counter() - began)


class _Scorer:
    """One model in one conversation that no question ever enters."""

    def __init__(self, engine: "Engine", chat: Conversation, system: str, *, grounded: bool) -> None:
        self.digest = hashlib.sha256()
        self.reserve = chat.use().reserve
        self._engine, self._chat, self._system, self._grounded = engine, chat, system, grounded
        self._language = language_of(engine)
        self._alone: dict[str, float] = {}

    def item(self, item: Item) -> Scored:
        options = item.choice.options if item.choice else ()
        spoken = [{"content": text} for text in (item.question, item.answer, *options)]
        if turns.spells_control(spoken, self._language.controls):
            return Scored("spells a control token")
        before = self._chat.consider(item.question)
        if before.alone:
            return Scored("nothing found")
        try:
            prompt = self._chat.fit(item.question, before)
        except DoesNotFit:
            return Scored("the prompt does not fit")
        if self._grounded and not prompt.passages:
            return Scored("no passage fits")
        _, answer = self._tokens(item.question, item.answer)
        kept = answer[: self.reserve]
        choices = [self._tokens(item.question, option)[1][:-1][: self.reserve] for option in options]
        self.digest.update(json.dumps([list(prompt.tokens), kept, choices]).encode())
        return Scored(
            "scored",
            passages=len(prompt.passages),
            prompt=len(prompt.tokens),
            tokens=len(kept),
            cut=len(kept) < len(answer),
            nll=-log_likelihood(self._engine, prompt.tokens, kept, item.id),
            options=tuple(log_likelihood(self._engine, prompt.tokens, choice, item.id) for choice in choices),
            alone=() if self._grounded else tuple(self._unasked(option) for option in options),
            lengths=tuple(len(option.encode()) for option in options),
        )

    def _unasked(self, option: str) -> float:
        """Σ ln p of an option behind a prompt without a question; an option stands in several items."""
        if option not in self._alone:
            prompt, answer = self._tokens("", option)
            self._alone[option] = log_likelihood(
                self._engine, prompt, answer[:-1][: self.reserve], "without a question"
            )
        return self._alone[option]

    def _tokens(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """A prompt without passages, and the answer's tokens, which are the same behind any prompt."""
        before = turns.framed([{"role": "user", "content": question}], self._system)
        return turns.tokens(self._language, before, [*before, {"role": "assistant", "content": answer}])
