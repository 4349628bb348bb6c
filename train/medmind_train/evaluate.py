"""Held-out perplexity with its standard error, and whether answers end. Knows how to measure; not what, nor when."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch

from medmind import console
from medmind.errors import MedmindError
from medmind.turns import choose
from medmind_train import agreement, distributed
from medmind_train.batches import by_length, collate
from medmind_train.examples import Example
from medmind_train.loss import Scores
from medmind_train.memory_full import MemoryFull, give_back, is_memory_full
from medmind_train.passes import Passes


@dataclass(frozen=True)
class Perplexity:
    """Perplexity over answers.

    Attributes:
        value: exp of the mean negative log-likelihood per answer token.
        error: its standard error.
        nll: the mean negative log-likelihood per answer token, natural logarithm.
        tokens: answer tokens, the EOS of complete answers among them.
        rows: rows they come from.
    """

    value: float
    error: float
    nll: float
    tokens: int
    rows: int

    @property
    def nll_error(self) -> float:
        """The standard error of `nll`: by the delta method, `error` is `value` times it."""
        return self.error / self.value if math.isfinite(self.value) else math.inf

    def __str__(self) -> str:
        """As `12.03 ± 0.41`."""
        return f"{self.value:.2f} ± {self.error:.2f}"


@dataclass(frozen=True)
class Ends:
    """Where answers end, given all of the answer: is EOS the likeliest token there?

    Attributes:
        right: ends at which it is.
        of: ends looked at; answers cut by the context have none.
    """

    right: int
    of: int

    @property
    def share(self) -> float | None:
        """`right / of`; None where there was no end to look at."""
        return self.right / self.of if self.of else None


def estimate(sums: Sequence[float], counts: Sequence[int]) -> Perplexity:
    """Perplexity from each row's summed loss and number of tokens.

    Tokens of one row are not independent, so the row is the sampling unit: the mean is the ratio estimator
    r = Σs / Σn with variance m/(m−1) · Σ(sᵢ − r·nᵢ)² / (Σn)² (Cochran, Sampling Techniques, 3rd ed., eq. 6.13 without
    the finite-population correction), carried over to exp(r) by the delta method.
    """
    rows, tokens = len(sums), sum(counts)
    mean = math.fsum(sums) / tokens
    residual = math.fsum((total - mean * count) ** 2 for total, count in zip(sums, counts, strict=True))
    spread = math.sqrt(rows / (rows - 1) * residual) / tokens if rows > 1 else 0.0
    value = math.exp(mean) if mean < 700 else math.inf
    return Perplexity(value, value * spread, mean, tokens, rows)


def choose_rows(examples: Sequence[Example], rows: Sequence[str], limit: int) -> list[Example]:
    """The examples of at most `limit` of the held-out rows with these ids (0: of all), chosen as benchmarks choose."""
    kept = {rows[place] for place in choose(rows, limit)}
    return [example for example in examples if example.row in kept]


@dataclass(frozen=True)
class Scored:
    """What a model gave for each row.

    Attributes:
        sums: the summed negative log-likelihood of a row's answer tokens, natural logarithm.
        counts: how many tokens that is.
        ends: as `Ends` has it.
    """

    sums: dict[str, float]
    counts: dict[str, int]
    ends: Ends

    @property
    def perplexity(self) -> Perplexity:
        """Over all rows."""
        return estimate(list(self.sums.values()), list(self.counts.values()))


@dataclass
class Room:
    """How much of an evaluation goes through the model at once.

    Attributes:
        tokens: padded tokens of a batch, at most, where it is of more than one example; halved when the memory is full.
    """

    tokens: int


def measure(
    passes: Passes,
    examples: Sequence[Example],
    *,
    pad: int,
    room: Room,
    description: str = "held-out perplexity",
    progress: console.Progress = console.progress,
) -> tuple[Perplexity, Ends]:
    """Measure a model on `examples`; see `score`."""
    scored = score(passes, examples, pad=pad, room=room, description=description, progress=progress)
    return scored.perplexity, scored.ends


def score(
    passes: Passes,
    examples: Sequence[Example],
    *,
    pad: int,
    room: Room,
    description: str,
    progress: console.Progress = console.progress,
) -> Scored:
    """What a model gives for each row of `examples`.

    Several processes take turns at the batches that one would make, and all get the same numbers.

    Raises:
        MedmindError: a loss that is not finite; names the row.
        MemoryFull: with a single example already.
    """
    rank, size = distributed.world()
    tried = room.tokens
    batches = by_length(examples, room.tokens)
    mine = batches[rank::size]
    with nullcontext() if passes.lockstep else agreement.together():
        own = _score(passes, mine, pad=pad, room=room, description=description, progress=progress)
        if passes.lockstep and len(mine) * size < len(batches):
            _scores(passes, batches[0], pad)  # the others are at a last one
    room.tokens, _ = distributed.extremes(room.tokens)
    if room.tokens != tried:
        console.note(f"the memory was full in evaluation; its batches are of {room.tokens:,} tokens from now on")
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    ends = seen = 0
    for one in sorted(one for part in distributed.gathered(own) for one in part):
        sums[one.row] = sums.get(one.row, 0.0) + one.nll
        counts[one.row] = counts.get(one.row, 0) + one.tokens
        seen += one.complete
        ends += one.complete and one.ends
    return Scored(sums, counts, Ends(ends, seen))


class _Score(NamedTuple):
    """What a model gave for an example; in order, the longest ones come first."""

    shortness: int
    row: str
    nll: float
    tokens: int
    complete: bool
    ends: bool


def _score(
    passes: Passes,
    batches: list[list[Example]],
    *,
    pad: int,
    room: Room,
    description: str,
    progress: console.Progress,
) -> list[_Score]:
    """The scores of some batches, in this process; `room` shrinks where the memory is full."""
    found = []
    waiting = list(batches)
    with progress(description, sum(map(len, batches)), "examples") as advance:
        while waiting:
            group = waiting.pop(0)
            scores = _scores(passes, group, pad)
            if scores is None:
                if passes.lockstep:
                    raise MemoryFull
                waiting = _smaller([group, *waiting], room)
                continue
            owners, first = scores.owners.cpu(), cast(torch.Tensor, scores.first).cpu()
            totals = torch.zeros(len(group), dtype=torch.float64).index_add_(0, owners, scores.nll.double().cpu())
            # Supervised tokens come in order, so the last of each example is where its answer ends.
            last = torch.bincount(owners, minlength=len(group)).cumsum(0) - 1
            for example, total, place in zip(group, totals.tolist(), last.tolist(), strict=True):
                if not math.isfinite(total):
                    raise MedmindError(
                        f"the model gives the row {example.row}, which is not trained on, a loss of {total}",
                        "try --dtype float32; if that does not help, the base's weights are broken",
                    )
                length, answer = len(example.ids), len(example.ids) - example.answer
                found.append(_Score(-length, example.row, total, answer, example.complete, bool(first[place])))
            advance(len(group))
    return found


def _scores(passes: Passes, group: Sequence[Example], pad: int) -> Scores | None:
    """The scores of a batch; None where the memory is full."""
    try:
        return passes.scores(collate([[example] for example in group], pad, "cpu"), likeliest=True)
    except (RuntimeError, MemoryError) as error:
        if not is_memory_full(error):
            raise
    return None


def _smaller(left: Sequence[Sequence[Example]], room: Room) -> list[list[Example]]:
    """What is left, in batches half as large as the first, which was too large."""
    if len(left[0]) == 1:
        raise MemoryFull
    give_back()
    room.tokens = collate([[example] for example in left[0]], 0, "cpu").ids.numel() // 2
    return by_length([example for group in left for example in group], room.tokens)
