"""What the cells of a level found, joined into the report's figures and compared with the reference's.

Knows results and statistics; runs nothing and knows no files.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from medmind_benchmarks import pace, score, statistics
from medmind_benchmarks.answers import accuracy
from medmind_benchmarks.figures import Bandwidth, Choice, Figures, Memory, Need, Perplexity, Speed
from medmind_benchmarks.plan import Plan, Planned
from medmind_benchmarks.runner import Outcome
from medmind_benchmarks.statistics import Estimate, Repeated
from medmind_runtime.config import KvType

RESERVE = 2**30
"""Bytes left to the system and other programs of a machine that runs a model."""
_GIB = 2**30
MACHINES = tuple(size * _GIB for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512))
"""Memory of usual machines."""


def figures(plan: Plan, outcome: Outcome, level: Planned, kv_type: KvType) -> Figures:
    """All figures of one level with one type of KV cache."""
    answers, raw = outcome.get(level.label, "answers", kv_type), outcome.get(level.label, "raw", kv_type)
    itself = level.label == plan.reference and kv_type == "f16"
    reference = None if itself else plan.reference
    raw_reference = None if plan.texts.kl_base else reference  # the file holds what its model made of the text
    memory = tuple(
        found
        for mode in plan.config.load_modes
        for context in plan.config.contexts
        if (found := outcome.get(level.label, "memory", kv_type, mode, context))
    )
    mine = _speeds(plan, outcome, level.label, kv_type)
    theirs = _speeds(plan, outcome, reference, "f16") if reference else {}
    moved = level.model.read_bytes + level.model.kv_cache_bytes(plan.generated_tokens, kv_type) // 2

    def own(text: str) -> score.Result | None:
        """What the same file made of it with the 16-bit cache, where this is another."""
        return None if kv_type == "f16" else outcome.get(level.label, text, "f16")

    return Figures(
        kv_type=kv_type,
        answers=_perplexity(
            answers, outcome.get(reference, "answers", "f16") if reference else None, own("answers"), by_token=False
        ),
        raw=_perplexity(
            raw, outcome.get(raw_reference, "raw", "f16") if raw_reference else None, own("raw"), by_token=True
        ),
        answers_fidelity=answers.fidelity if answers else None,
        raw_fidelity=raw.fidelity if raw else None,
        choices=_choices(plan, outcome, level.label, kv_type, reference),
        memory=memory,
        needs=_needs(plan.config.contexts, memory),
        prompt=_speed(plan.prompt_tokens, mine, theirs, lambda one: one.prompt),
        generation=_share(
            _speed(plan.generated_tokens, mine, theirs, lambda one: one.generation), moved, bandwidth(plan, outcome)
        ),
        load_seconds=statistics.repeated([one.load_seconds for one in mine.values()]) if mine else None,
        first_token_seconds=statistics.repeated([one.first_token_seconds for one in mine.values()]) if mine else None,
    )


def bandwidth(plan: Plan, outcome: Outcome) -> Bandwidth | None:
    """Memory bandwidth over all rounds."""
    rounds: list[Bandwidth] = [
        found for turn in range(plan.config.rounds) if (found := outcome.get("", "bandwidth", turn))
    ]
    if not rounds:
        return None
    samples = [rate for one in rounds for rate in one.bytes_per_second.samples]
    return replace(rounds[0], bytes_per_second=statistics.repeated(samples))


def _perplexity(
    mine: score.Result | None, reference: score.Result | None, own: score.Result | None, *, by_token: bool
) -> Perplexity | None:
    """Raw text's error is llama-perplexity's own, over tokens; comparisons are paired by groups for both texts."""
    if mine is None:
        return None
    scored = [index for index, count in enumerate(mine.tokens) if count]
    nll, tokens = [mine.nll[index] for index in scored], [mine.tokens[index] for index in scored]
    other = reference.nll if reference else mine.reference_nll
    theirs = [other[index] for index in scored] if other else None
    uncached = [own.nll[index] for index in scored] if own else None
    return Perplexity(
        perplexity=statistics.perplexity_of_tokens(math.fsum(nll), mine.squares, sum(tokens))
        if by_token
        else statistics.perplexity(nll, tokens),
        ratio=statistics.perplexity_ratio(nll, theirs, tokens) if theirs else None,
        difference=statistics.perplexity_difference(nll, theirs, tokens) if theirs else None,
        tokens=sum(tokens),
        seconds=mine.seconds,
        cache_ratio=statistics.perplexity_ratio(nll, uncached, tokens) if uncached else None,
    )


def _choices(plan: Plan, outcome: Outcome, label: str, kv_type: KvType, reference: str | None) -> tuple[Choice, ...]:
    found = []
    for place, asked in enumerate(plan.questions):
        mine = outcome.get(label, "choices", kv_type, place)
        theirs = outcome.get(reference, "choices", "f16", place) if reference else None
        if theirs and mine and theirs.token_digest != mine.token_digest:  # the untuned base's template is another
            theirs = None
        if mine:
            found.append(accuracy.summarize(asked.name, asked.digest, asked.questions, mine, theirs))
    return tuple(found)


def _needs(contexts: Sequence[int], memory: Sequence[Memory]) -> tuple[Need, ...]:
    needs = []
    for context in contexts:
        asked = [(_asked(one), one.load_mode) for one in memory if one.context == context]
        if asked:
            least, mode = min(asked, key=lambda pair: pair[0])
            machine = next((size for size in MACHINES if size >= least + RESERVE), None)
            needs.append(Need(context, mode, least, machine))
    return tuple(needs)


def _asked(memory: Memory) -> int:
    """The peak, or all that llama.cpp allocates beside the library: a long context's last pages are touched late."""
    return max(memory.peak, memory.library + memory.weights + memory.kv_cache + memory.compute)


def _speeds(plan: Plan, outcome: Outcome, label: str, kv_type: str) -> dict[int, pace.Result]:
    return {turn: found for turn in range(plan.config.rounds) if (found := outcome.get(label, "speed", kv_type, turn))}


def _speed(
    tokens: int,
    mine: dict[int, pace.Result],
    theirs: dict[int, pace.Result],
    value: Callable[[pace.Result], Sequence[float]],
) -> Speed | None:
    if not mine:
        return None
    ratios = [
        statistics.repeated(value(mine[turn])).mean / statistics.repeated(value(theirs[turn])).mean
        for turn in sorted(mine.keys() & theirs.keys())
    ]
    samples = [sample for one in mine.values() for sample in value(one)]
    return Speed(tokens, statistics.repeated(samples), statistics.repeated(ratios) if ratios else None, None, None)


def _share(speed: Speed | None, moved: int, measured: Bandwidth | None) -> Speed | None:
    """How much of the bandwidth generating used; the errors of both means add in squares."""
    if speed is None:
        return None
    share = None
    if measured:
        rate, limit = speed.tokens_per_second, measured.bytes_per_second
        value = moved * rate.mean / limit.mean
        errors = [_relative_error(rate), _relative_error(limit)]
        known = [error for error in errors if error is not None]
        share = Estimate(value, value * math.hypot(*known) if len(known) == len(errors) else None)
    return replace(speed, bytes_per_token=moved, bandwidth_share=share)


def _relative_error(figure: Repeated) -> float | None:
    if figure.deviation is None:
        return None
    return figure.deviation / math.sqrt(len(figure.samples)) / figure.mean
