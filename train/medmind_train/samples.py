"""A few held-out questions answered greedily by the base and by the tuned model. Knows examples; no report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medmind_train import answering, evaluate
from medmind_train.examples import Example
from medmind_train.inputs import Inputs

LONGEST = 96
"""Tokens after which a sample answer is cut off, where the context does not end before: enough to see its tone."""


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        ended: it ended by itself, and was not cut off.
    """

    row: str
    text: str
    ended: bool


def choose(inputs: Inputs) -> list[Example]:
    """The questions: the first ones of some held-out rows, which depend on their names alone.

    None with `--sample-answers 0` or `--answer-rows 0`, and none that fills more than half of the context.
    """
    config = inputs.config
    firsts = {example.row: example for example in reversed(inputs.evaluated)}
    short = [example for example in firsts.values() if 2 * example.answer <= config.context]
    count = min(config.sample_answers, config.answer_rows)
    return evaluate.choose_rows(short, [example.row for example in short], count) if count else []


def answer(model: Any, inputs: Inputs) -> list[Answer]:
    """Answer the chosen questions greedily; `model` keeps its mode."""
    questions = choose(inputs)
    if not questions:
        return []
    training = model.training
    model.eval()
    try:
        found = list(
            answering.in_batches(
                model,
                [example.ids[: example.answer] for example in questions],
                eos=inputs.tokenizer.eos_token_id,
                pad=inputs.pad,
                limit=min(LONGEST, inputs.config.context - max(example.answer for example in questions)),
                device=inputs.hardware.device,
                dtype=inputs.dtype,
            )
        )
    finally:
        model.train(training)
    return [_read(example, ids, inputs.tokenizer) for example, ids in zip(questions, found, strict=True)]


def side_by_side(inputs: Inputs, before: Sequence[Answer], after: Sequence[Answer]) -> list[dict[str, Any]]:
    """Question, true answer, and what both models said, for the manifest; rows that only one was asked are left out."""
    rows = {row.id: row for row in inputs.prepared.heldout}
    tuned = {one.row: one for one in after}
    return [
        {
            "row": one.row,
            "question": rows[one.row].question,
            "expected": next(turn["content"] for turn in rows[one.row].messages if turn["role"] == "assistant"),
            "before": {"text": one.text, "ended": one.ended},
            "after": {"text": tuned[one.row].text, "ended": tuned[one.row].ended},
        }
        for one in before
        if one.row in tuned and one.row in rows
    ]


def _read(example: Example, ids: Sequence[int], tokenizer: Any) -> Answer:
    ended = bool(ids) and ids[-1] == tokenizer.eos_token_id
    return Answer(example.row, tokenizer.decode(ids, skip_special_tokens=True).strip(), ended)
