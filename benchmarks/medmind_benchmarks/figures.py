"""What a benchmark measures of one model file with one type of KV cache, as typed records with their uncertainties.

Knows no file, no level and no report; measures nothing and renders nothing.
"""

from dataclasses import dataclass
from typing import Literal

from medmind_benchmarks.statistics import Estimate, Repeated
from medmind_runtime.config import KvType
from medmind_runtime.engine.loading import LoadMode

Headline = Literal["accuracy", "accuracy_gain"]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of one text, and how it compares with the reference over the same tokens (None for the reference).

    Attributes:
        perplexity: with the standard error over answers' rows; over tokens for raw text, as llama-perplexity has it.
        ratio, difference: against the reference, paired by rows (answers) or chunks (raw text).
        tokens: scored.
        seconds: that the scoring took, the reference beside it included.
        cache_ratio: with a quantized KV cache, against the same file with the 16-bit one, paired in the same way; None
            for the 16-bit one, and in reports from before it was told.
    """

    perplexity: Estimate
    ratio: Estimate | None
    difference: Estimate | None
    tokens: int
    seconds: float
    cache_ratio: Estimate | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts of tokens by decimal logarithm of their KL divergence.

    Bin i holds 10^(low + i / per_decade) ≤ KL < 10^(low + (i + 1) / per_decade); `below` holds what is smaller, zero
    and rounding below zero included, `above` what is larger.
    """

    low: int
    per_decade: int
    counts: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True)
class Fidelity:
    """How far the next-token distributions of a file are from the reference's, over the same tokens.

    KL divergence is Σ p_reference · (ln p_reference − ln p) over the whole vocabulary, in nats.

    Attributes:
        method: `direct`, both models side by side in 32-bit logits; `base-file`, the reference's log-probabilities read
            back in the 16 bits of llama.cpp's --kl-divergence-base, which reads 1e-5 or so for identical models.
        kl_mean, kl_median, kl_p99: with standard errors over rows or chunks (median and p99 by bootstrap of them).
        kl_max: the largest of one token; an extreme has no standard error.
        kl_quantiles: fraction of tokens as text (`0.5`) → KL that this share stays below.
        same_top: share of tokens where both find the same token most likely.
        rms_delta_p, mean_delta_p: of p − p_reference of the token that stands in the text, 0…1.
        tokens: compared.
    """

    method: Literal["direct", "base-file"]
    kl_mean: Estimate
    kl_median: Estimate
    kl_p99: Estimate
    kl_max: float
    kl_quantiles: dict[str, float]
    kl_histogram: Histogram
    same_top: Estimate
    rms_delta_p: Estimate
    mean_delta_p: Estimate
    tokens: int


@dataclass(frozen=True)
class Flips:
    """Questions that a level answers otherwise than the reference.

    Attributes:
        lost, won: right → wrong, wrong → right.
        other: wrong → wrong, another choice.
        difference: accuracy less the reference's.
        low, high: its paired 95 % interval.
        p_value: exact McNemar test of lost against won.
    """

    lost: int
    won: int
    other: int
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Choice:
    """Accuracy on multiple-choice questions, the choice with the highest likelihood being the answer.

    Attributes:
        task: name of the question set.
        digest: of the questions, choices and right answers.
        questions, choices: how many; choices on average.
        left_out: questions that do not fit the context, or spell out a control token.
        headline: which of the accuracies to quote. For letters `accuracy`, by which published figures are made. For
            texts `accuracy_gain`: each is the answer to some question, and one is likelier than another whatever is
            asked (the sum prefers the shortest, the mean the most usual); what the question adds tells them apart.
        accuracy: by summed log-likelihood.
        accuracy_normalized: by log-likelihood per byte of the choice.
        accuracy_gain: by what showing the question adds to the summed log-likelihood. These three are acc, acc_norm
            and acc_mutual_info of lm-evaluation-harness (lm_eval/api/task.py).
        chance: accuracy of guessing.
        answer_only: `accuracy_normalized` without showing the question: what the choices alone give away.
        flips: against the reference, by the headline's rule; None for the reference.
    """

    task: str
    digest: str
    questions: int
    left_out: int
    choices: float
    headline: Headline
    accuracy: Estimate
    accuracy_normalized: Estimate
    accuracy_gain: Estimate
    chance: float
    answer_only: Estimate | None
    flips: Flips | None
    seconds: float

    @property
    def quoted(self) -> Estimate:
        """The accuracy that `headline` names."""
        found: Estimate = getattr(self, self.headline)
        return found


@dataclass(frozen=True)
class Memory:
    """Bytes in use in a fresh process that loads a model, reads a prompt and generates.

    Attributes:
        load_mode: how the weights came into memory.
        context: tokens that the KV cache holds.
        weights, kv_cache, compute: what llama.cpp says it allocates.
        repacked: second copies of weights in a layout for this processor, also by llama.cpp's word; within none of the
            others. With `copy` they are the only copies.
        library: resident memory of the process with Python and llama.cpp loaded and no model (measured).
        peak: the most that was resident (measured).
        anonymous, file_backed: resident memory at the end, allocated pages and pages of mapped files apart (measured;
            None where the system does not tell them apart). File-backed pages can be given back under pressure.
    """

    load_mode: LoadMode
    context: int
    weights: int
    repacked: int
    kv_cache: int
    compute: int
    library: int
    peak: int
    anonymous: int | None
    file_backed: int | None

    @property
    def added(self) -> int:
        """What the model added to the process: peak without the library's baseline."""
        return self.peak - self.library


@dataclass(frozen=True)
class Need:
    """What running a file at one context asks of a machine.

    Attributes:
        context: tokens.
        load_mode: the one with the lowest peak.
        bytes: that peak, or the sum of what llama.cpp allocates where that is more (pages not touched yet).
        machine: bytes of the smallest usual machine that has as much beside the reserve of the report's conditions;
            None when not even the largest has.
    """

    context: int
    load_mode: LoadMode
    bytes: int
    machine: int | None


@dataclass(frozen=True)
class Speed:
    """Tokens per second by llama-bench's method.

    Attributes:
        tokens: of one repetition: prompt tokens read, or tokens generated one by one.
        tokens_per_second: over all repetitions of all rounds.
        relative: ratio to the reference within each round (None for the reference).
        bytes_per_token: read from memory for one token; None for prompts, whose tokens share a reading of the weights.
        bandwidth_share: bytes_per_token · tokens per second ÷ memory bandwidth of the conditions; None for prompts, or
            when the bandwidth was not measured. Above 1 when a model fits the processor's caches.
    """

    tokens: int
    tokens_per_second: Repeated
    relative: Repeated | None
    bytes_per_token: int | None
    bandwidth_share: Estimate | None


@dataclass(frozen=True)
class Bandwidth:
    """Memory bandwidth measured beside the speeds.

    Attributes:
        bytes_per_second: of reading; every repetition.
        threads: that read at once, as many as the model computes with.
        bytes: read by one repetition, far more than the processor's caches hold.
        method: how, in words.
    """

    bytes_per_second: Repeated
    threads: int
    bytes: int
    method: str


@dataclass(frozen=True)
class Figures:
    """All that was measured with one type of KV cache; None and empty where a cell was not run or gave nothing.

    Attributes:
        kv_type: of keys and values.
        answers: perplexity of the held-out answers given their questions.
        raw: perplexity of raw text as llama-perplexity measures it.
        answers_fidelity, raw_fidelity: on the same tokens, against the reference with a 16-bit KV cache.
        choices: one record a question set.
        memory: one record per load mode and context.
        needs: one record a context.
        prompt, generation: speeds.
        load_seconds: from the path to a model that can answer, file in the page cache.
        first_token_seconds: from a prompt of `prompt.tokens` tokens to the first token of an answer.
    """

    kv_type: KvType
    answers: Perplexity | None
    raw: Perplexity | None
    answers_fidelity: Fidelity | None
    raw_fidelity: Fidelity | None
    choices: tuple[Choice, ...]
    memory: tuple[Memory, ...]
    needs: tuple[Need, ...]
    prompt: Speed | None
    generation: Speed | None
    load_seconds: Repeated | None
    first_token_seconds: Repeated | None

    @property
    def shortest(self) -> Memory | None:
        """Of the first load mode measured, at the shortest context."""
        first = [memory for memory in self.memory if memory.load_mode == self.memory[0].load_mode]
        return min(first, key=lambda memory: memory.context, default=None)
