"""What a model made of the items alone and with passages → paired figures. Knows numbers; loads no model."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmind_benchmarks.answers import accuracy
from medmind_benchmarks.answers.cell import AnswersResult
from medmind_benchmarks.answers.questions import QuestionSet
from medmind_benchmarks.figures import Choice
from medmind_benchmarks.grounding.cell import Result, Scored, State
from medmind_benchmarks.grounding.items import Item
from medmind_benchmarks.grounding.results import Effect, Pair
from medmind_benchmarks.grounding.retrieval import Hit
from medmind_benchmarks.statistics import Estimate, perplexity, perplexity_ratio

TASK = "held-out answers"


@dataclass(frozen=True)
class Row:
    """One item on both sides."""

    item: Item
    hit: Hit
    alone: Scored
    grounded: Scored

    @property
    def state(self) -> State:
        """`scored`, or why one of the sides has no figures."""
        return self.grounded.state if self.alone.state == "scored" else self.alone.state

    @property
    def compared(self) -> bool:
        """Whether both sides have figures."""
        return self.state == "scored"

    @property
    def own_topic(self) -> bool:
        """Whether a passage of its own topic is in the prompt; passages that do not fit leave from the end."""
        return self.hit.place is not None and self.hit.place <= self.grounded.passages


def rows(items: Sequence[Item], hits: Sequence[Hit], alone: Result, grounded: Result) -> list[Row]:
    """The items with what is known of each."""
    return [Row(*one) for one in zip(items, hits, alone.scored, grounded.scored, strict=True)]


def pair(model: str, library: str, found: Sequence[Row], alone: Result, grounded: Result) -> Pair:
    """The figures of one model with one library."""
    used = [row for row in found if row.compared]
    return Pair(
        model=model,
        library=library,
        status="measured",
        reason="",
        passages=_mean([row.grounded.passages for row in used]),
        passage_tokens=_mean([row.grounded.prompt - row.alone.prompt for row in used]),
        left_out=dict(Counter(row.state for row in found if not row.compared)),
        all=effect(used),
        own_topic=effect([row for row in used if row.own_topic]),
        other_topics=effect([row for row in used if row.item.topic and not row.own_topic]),
        token_digests=(alone.token_digest, grounded.token_digest),
        seconds=alone.seconds + grounded.seconds,
    )


def effect(used: Sequence[Row]) -> Effect | None:
    """What the passages do to some rows, each of them compared; None for none."""
    if not used:
        return None
    tokens = [row.alone.tokens for row in used]
    before, now = [row.alone.nll for row in used], [row.grounded.nll for row in used]
    choice_alone, choice_grounded = _choices([row for row in used if row.item.choice])
    return Effect(
        rows=len(used),
        tokens=sum(tokens),
        cut=sum(row.alone.cut for row in used),
        question_alone=perplexity(before, tokens),
        with_passages=perplexity(now, tokens),
        change=perplexity_ratio(now, before, tokens),
        likelier=sum(new < old for new, old in zip(now, before, strict=True)),
        choice_alone=choice_alone,
        choice_with_passages=choice_grounded,
    )


def record(row: Row, model: str, library: str) -> Mapping[str, Any]:
    """One row for `rows.jsonl`: figures and no text."""
    figures = {
        "tokens": row.alone.tokens,
        "nll": row.alone.nll,
        "nll_with_passages": row.grounded.nll,
        "passages": row.grounded.passages,
        "passage_tokens": row.grounded.prompt - row.alone.prompt,
        "own_topic": row.own_topic,
    }
    named = {"model": model, "library": library, "id": row.item.id, "state": row.state}
    return named | (figures if row.compared else {})


def _choices(used: Sequence[Row]) -> tuple[Choice | None, Choice | None]:
    """Multiple choice on both sides, by one rule: what the prompt adds to an option's own likelihood."""
    questions = [row.item.choice for row in used if row.item.choice]
    if not questions:
        return None, None
    alone = _answers(used, [row.alone.options for row in used])
    grounded = _answers(used, [row.grounded.options for row in used])
    digest = QuestionSet(TASK, tuple(questions), {}).digest
    return (
        accuracy.summarize(TASK, digest, questions, alone, None),
        accuracy.summarize(TASK, digest, questions, grounded, alone),
    )


def _answers(used: Sequence[Row], likelihood: Sequence[tuple[float, ...]]) -> AnswersResult:
    return AnswersResult(
        likelihood=tuple(likelihood),
        alone=tuple(row.alone.alone for row in used),
        lengths=tuple(row.alone.lengths for row in used),
        left_out=0,
        token_digest="",
        seconds=0.0,
    )


def _mean(values: Sequence[float]) -> Estimate | None:
    if not values:
        return None
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return Estimate(statistics.fmean(values), error)
