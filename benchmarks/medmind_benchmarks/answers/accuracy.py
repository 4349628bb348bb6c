"""From the options' log-likelihoods to accuracies, flips and intervals. Knows numbers; loads no model."""

from collections.abc import Callable, Sequence
from typing import Literal

from medmind_benchmarks.answers.cell import AnswersResult
from medmind_benchmarks.answers.questions import Question
from medmind_benchmarks.figures import Choice, Flips, Headline
from medmind_benchmarks.proportions import mcnemar, paired_interval, share

Rule = Literal["accuracy", "accuracy_normalized", "accuracy_gain", "answer_only"]
_VALUES: dict[Rule, Callable[[float, float, int], float]] = {
    "accuracy": lambda asked, alone, length: asked,
    "accuracy_normalized": lambda asked, alone, length: asked / length,
    "accuracy_gain": lambda asked, alone, length: asked - alone,
    "answer_only": lambda asked, alone, length: alone / length,
}
"""How an option is valued: by Σ ln p with the question, by the same without it, and by its bytes."""


def summarize(
    task: str, digest: str, questions: Sequence[Question], mine: AnswersResult, reference: AnswersResult | None
) -> Choice:
    """Accuracies of one model, compared with the reference over the same questions.

    Args:
        task, digest: of the question set.
        questions: those that were scored.
        mine: of this model.
        reference: of the model it is compared with; None for the reference itself.
    """
    rule = headline(questions)
    right = {kind: correct(questions, mine, kind) for kind in _VALUES}
    scored = [one for one, options in zip(questions, mine.likelihood, strict=True) if options]
    return Choice(
        task=task,
        digest=digest,
        questions=len(scored),
        left_out=mine.left_out,
        choices=sum(len(one.options) for one in scored) / len(scored),
        headline=rule,
        accuracy=share(right["accuracy"]),
        accuracy_normalized=share(right["accuracy_normalized"]),
        accuracy_gain=share(right["accuracy_gain"]),
        chance=sum(1 / len(one.options) for one in scored) / len(scored),
        answer_only=share(right["answer_only"]),
        flips=_flips(questions, mine, reference, rule) if reference else None,
        seconds=mine.seconds,
    )


def headline(questions: Sequence[Question]) -> Headline:
    """The accuracy to quote; `figures.Choice` says why."""
    return "accuracy_gain" if any(question.style == "text" for question in questions) else "accuracy"


def chosen(result: AnswersResult, rule: Rule) -> list[int | None]:
    """The option that is valued highest in each question, the first of equal ones; None where none was scored."""
    found: list[int | None] = []
    for options in zip(result.likelihood, result.alone, result.lengths, strict=True):
        values = [_VALUES[rule](*option) for option in zip(*options, strict=True)]
        found.append(values.index(max(values)) if values else None)
    return found


def correct(questions: Sequence[Question], result: AnswersResult, rule: Rule) -> list[bool]:
    """Whether each scored question is answered rightly by `rule`."""
    places = zip(questions, chosen(result, rule), strict=True)
    return [place == question.answer for question, place in places if place is not None]


def _flips(questions: Sequence[Question], mine: AnswersResult, reference: AnswersResult, rule: Rule) -> Flips:
    before, now = correct(questions, reference, rule), correct(questions, mine, rule)
    lost = sum(a and not b for a, b in zip(before, now, strict=True))
    won = sum(b and not a for a, b in zip(before, now, strict=True))
    moved = sum(a != b for a, b in zip(chosen(reference, rule), chosen(mine, rule), strict=True))
    low, high = paired_interval(before, now)
    return Flips(lost, won, moved - lost - won, (won - lost) / len(now), low, high, mcnemar(lost, won))
