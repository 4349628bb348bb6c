"""Whether a model's greedy answers stop by themselves: batched generation, loops told apart. Knows no data format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medmind import console
from medmind_train.examples import Example
from medmind_train.hardware import Device, Dtype
from medmind_train.memory_full import give_back, is_memory_full
from medmind_train.model import precision

NGRAM = 32
"""An answer loops when its last so many tokens ..."""
REPEATS = 4
"""... occur at least so often in it, that end counted."""
_EVERY = 16
"""Tokens between two looks for loops."""
_BATCH = 8
"""Questions that are answered together, where the card's memory holds their caches; else fewer."""
_LONGEST = 512
"""Tokens after which an answer is given up, where the context does not end it before."""


@dataclass(frozen=True)
class Stopping:
    """How greedy answers came to an end.

    Attributes:
        questions: how many were asked.
        stopped: ended with EOS.
        looped: repeated themselves, and were broken off.
        unfinished: were still going at `limit` tokens.
        limit: most tokens an answer could have.
    """

    questions: int
    stopped: int
    looped: int
    unfinished: int
    limit: int

    @property
    def share(self) -> float:
        """The share that stopped by itself."""
        return self.stopped / self.questions


def loops(tokens: Sequence[int]) -> bool:
    """Whether an answer that has not ended is in a loop: its last `NGRAM` tokens occur `REPEATS` times in it."""
    if len(tokens) < NGRAM + REPEATS - 1:
        return False
    end = list(tokens[-NGRAM:])
    found = sum(list(tokens[at : at + NGRAM]) == end for at in range(len(tokens) - NGRAM + 1) if tokens[at] == end[0])
    return found >= REPEATS


def answers(
    model: Any, prompts: Sequence[Sequence[int]], *, eos: int, pad: int, limit: int, device: Device, dtype: Dtype
) -> list[list[int]]:
    """Greedy answers, batched and with a KV cache, each up to and with its EOS, to `limit` tokens, or into a loop.

    Args:
        prompts: token ids; they are padded on the left.
        limit: most tokens of an answer.
    """
    from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    attention = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)

    looped: dict[int, int] = {}

    class Looping(StoppingCriteria):
        """Ends the rows that repeat themselves, and remembers where."""

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            written = input_ids[:, longest:]
            if written.shape[1] % _EVERY == 0:
                for at, row in enumerate(written.tolist()):
                    if at not in looped and eos not in row and loops(row):
                        looped[at] = len(row)
            return torch.tensor([at in looped for at in range(len(written))], device=written.device)

    make: Any = GenerationConfig  # it has no annotations
    settings = make(do_sample=False, max_new_tokens=limit, eos_token_id=eos, pad_token_id=pad, use_cache=True)
    with torch.no_grad(), precision(device, dtype):
        written = model.generate(
            input_ids=ids,
            attention_mask=attention,
            generation_config=settings,
            stopping_criteria=StoppingCriteriaList([Looping()]),
        )
    rows = []
    for at, row in enumerate(written[:, longest:].tolist()):
        kept = row[: looped.get(at)]  # behind its end a row is filled with padding, which may be EOS
        rows.append(kept[: kept.index(eos) + 1] if eos in kept else kept)
    return rows


def in_batches(
    model: Any, prompts: Sequence[Sequence[int]], *, eos: int, pad: int, limit: int, device: Device, dtype: Dtype
) -> Iterator[list[int]]:
    """`answers` in their order, of so many prompts together as the memory holds.

    Raises:
        torch.OutOfMemoryError: or what else says that the memory is full, with a single prompt already.
    """
    left = list(prompts)
    together = _BATCH
    while left:
        batch = left[:together]
        try:
            if device == "cuda":
                _try_room(model, len(batch), max(map(len, batch)) + limit, dtype)
            found = answers(model, batch, eos=eos, pad=pad, limit=limit, device=device, dtype=dtype)
        except (RuntimeError, MemoryError) as error:
            if len(batch) == 1 or not is_memory_full(error):
                raise
            found = None
        if found is None:  # not in the handler: the error would hold on to what the failed pass had allocated
            together = len(batch) // 2
            give_back()
            continue
        del left[: len(batch)]
        yield from found


def measure(
    model: Any, examples: Sequence[Example], *, eos: int, pad: int, context: int, device: Device, dtype: Dtype
) -> Stopping:
    """Answer the questions of `examples` greedily and count how the answers end; `model` keeps its mode.

    Args:
        context: tokens of question and answer together, as trained.
    """
    limit = min(_LONGEST, context - max(example.answer for example in examples))
    counts = {"stopped": 0, "looped": 0, "unfinished": 0}
    training = model.training
    model.eval()
    try:
        with console.progress("answering held-out questions", len(examples), "questions") as advance:
            asked = [example.ids[: example.answer] for example in sorted(examples, key=lambda example: example.answer)]
            for answer in in_batches(model, asked, eos=eos, pad=pad, limit=limit, device=device, dtype=dtype):
                counts[_fate(answer, eos)] += 1
                advance(1)
    finally:
        model.train(training)
    return Stopping(questions=len(examples), limit=limit, **counts)


def _try_room(model: Any, rows: int, tokens: int, dtype: Dtype) -> None:
    """Ask for the memory that keys and values will take at the end: better now than after hundreds of tokens.

    Raises:
        torch.OutOfMemoryError: it is not there.
    """
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = 2 * config.num_hidden_layers * heads * width * rows * tokens
    torch.empty(size, dtype=getattr(torch, dtype), device="cuda")


def _fate(answer: Sequence[int], eos: int) -> str:
    if answer and answer[-1] == eos:
        return "stopped"
    return "looped" if loops(answer) else "unfinished"
