"""From the options' log-likelihoods to accuracies, flips and intervals. Knows numbers; loads no model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from medmind_benchmarks.answers.questions import Question
from medmind_benchmarks.answers.scoring import AnswersResult
from medmind_benchmarks.proportions import Flips, Share, flips, share

Rule = Literal["summed", "normalised", "gain", "alone"]
"""How an option is chosen: by Σ ln p, by Σ ln p / bytes, by what the question adds to Σ ln p, or without the question.

The first three are `acc`, `acc_norm` and `acc_mutual_info` of lm-evaluation-harness (lm_eval/api/task.py).
"""


@dataclass(frozen=True)
class Answers:
    """How well a model tells right options from wrong ones.

    Attributes:
        source: name of the question set.
        digest: over its questions.
        headline: the rule to quote. For letters `summed`, by which published accuracies are made. For texts `gain`:
            each is the answer to some question, and one is likelier than another whatever is asked (`summed` prefers
            the shortest, `normalised` the most usual); what the question adds is what tells them apart.
        summed, normalised, gain: accuracy by each rule.
        alone: accuracy of `normalised` without the question: what the options themselves give away.
        chance: accuracy of guessing.
        flips: by the headline's rule, against the reference (None for the reference).
        left_out: questions that do not fit the context.
        seconds: it took.
    """

    source: str
    digest: str
    headline: Rule
    summed: Share
    normalised: Share
    gain: Share
    alone: Share
    chance: float
    flips: Flips | None
    left_out: int
    seconds: float

    @property
    def accuracy(self) -> Share:
        """By the headline's rule."""
        return self.gain if self.headline == "gain" else self.summed


def summarize(
    source: str, digest: str, questions: Sequence[Question], mine: AnswersResult, reference: AnswersResult | None
) -> Answers:
    """Accuracies of one model, compared with the reference over the same questions.

    Args:
        source, digest: of the question set.
        questions: those that were scored.
        mine: of this model.
        reference: of the model it is compared with; None for the reference itself.
    """
    rule = headline(questions)
    right = {kind: correct(questions, mine, kind) for kind in ("summed", "normalised", "gain")}
    scored = [one for one, options in zip(questions, mine.likelihood, strict=True) if options]
    return Answers(
        source=source,
        digest=digest,
        headline=rule,
        summed=share(right["summed"]),
        normalised=share(right["normalised"]),
        gain=share(right["gain"]),
        alone=share(correct(questions, mine, "alone")),
        chance=sum(1 / len(one.options) for one in scored) / len(scored),
        flips=flips(correct(questions, reference, rule), right[rule]) if reference else None,
        left_out=mine.left_out,
        seconds=mine.seconds,
    )


def headline(questions: Sequence[Question]) -> Rule:
    """The rule to quote; see `Answers`."""
    return "gain" if any(question.style == "text" for question in questions) else "summed"


def correct(questions: Sequence[Question], result: AnswersResult, rule: Rule) -> list[bool]:
    """Whether each scored question is answered rightly by `rule`; among equal options the first counts as chosen."""
    values: dict[Rule, Callable[[float, float, int], float]] = {
        "summed": lambda asked, alone, length: asked,
        "normalised": lambda asked, alone, length: asked / length,
        "gain": lambda asked, alone, length: asked - alone,
        "alone": lambda asked, alone, length: alone / length,
    }
    found = []
    for question, *options in zip(questions, result.likelihood, result.alone, result.lengths, strict=True):
        if not options[0]:
            continue
        scores = [values[rule](*option) for option in zip(*options, strict=True)]
        found.append(scores.index(max(scores)) == question.answer)
    return found
