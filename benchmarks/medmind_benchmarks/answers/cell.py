"""The log-likelihood of every option under one model: the cell `answers`. Not which option is right.

Each is scored with its question, and once without any.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medmind import turns
from medmind.errors import MedmindError
from medmind_benchmarks.answers import questions as question_files
from medmind_benchmarks.answers.questions import Question
from medmind_benchmarks.likelihood import language_of, log_likelihood
from medmind_benchmarks.opening import opened
from medmind_runtime.config import KvType

if TYPE_CHECKING:
    from medmind_runtime.engine.engine import Engine


@dataclass(frozen=True)
class Request:
    """What to score.

    Attributes:
        model: path of the GGUF.
        questions: path of a file that `questions.write` wrote.
        digest: of the questions in it.
        context: tokens that the KV cache holds; a question of which one option does not fit is left out.
        system_prompt: put first unless empty.
    """

    kind: Literal["answers"]
    model: str
    questions: str
    digest: str
    context: int
    threads: int
    kv_type: KvType
    system_prompt: str


@dataclass(frozen=True)
class AnswersResult:
    """What a model makes of each question, in their order; a question that does not fit the context has no options.

    Attributes:
        likelihood: [question][option] Σ ln p(option's tokens | prompt), without the token that ends an answer.
        alone: the same with the question left out of the prompt.
        lengths: [question][option] UTF-8 bytes.
        left_out: questions that do not fit, or spell out a control token.
        token_digest: over every token id scored; equal for all levels of a model.
        seconds: for all.
    """

    likelihood: tuple[tuple[float, ...], ...]
    alone: tuple[tuple[float, ...], ...]
    lengths: tuple[tuple[int, ...], ...]
    left_out: int
    token_digest: str
    seconds: float


def measure(request: Request, advance: Callable[[], None]) -> AnswersResult:
    """Do what `request` asks; `advance` is called after every question.

    Raises:
        MedmindError: the model cannot be loaded or scored.
    """
    with opened(
        Path(request.model), context=request.context, threads=request.threads, kv_type=request.kv_type
    ) as engine:
        return score(
            engine,
            language_of(engine),
            question_files.read(Path(request.questions)),
            context=request.context,
            system_prompt=request.system_prompt,
            advance=advance,
        )


def score(
    engine: "Engine",
    language: turns.Language,
    questions: Sequence[Question],
    *,
    context: int,
    system_prompt: str,
    advance: Callable[[], None],
) -> AnswersResult:
    """Score every option of every question.

    Args:
        engine: its KV cache holds `context` tokens.
        language: the engine's template and tokenizer.
        questions: to score.
        context: tokens; a question of which one option does not fit is left out.
        system_prompt: put first unless empty.
        advance: called after every question.

    Raises:
        MedmindError: a likelihood that is not a number; names the question.
    """
    began = time.perf_counter()
    digest = hashlib.sha256()
    likelihood, alone, lengths = [], [], []
    known: dict[tuple[int, ...], float] = {}
    for question in questions:
        asked = [_tokens(language, question.prompt, option, system_prompt) for option in question.scored]
        unasked = [_tokens(language, "", option, system_prompt) for option in question.scored]
        fits = all(len(prompt) + len(answer) <= context for prompt, answer in asked)
        spells = turns.spells_control(
            [{"content": text} for text in (question.prompt, *question.scored)], language.controls
        )
        if not fits or spells:
            asked, unasked = [], []
        digest.update(json.dumps([asked, unasked]).encode())
        likelihood.append(tuple(log_likelihood(engine, prompt, answer, question.id) for prompt, answer in asked))
        for prompt, answer in unasked:  # an option stands in several questions, and a letter in all
            if tuple(answer) not in known:
                known[tuple(answer)] = log_likelihood(engine, prompt, answer, question.id)
        alone.append(tuple(known[tuple(answer)] for _, answer in unasked))
        lengths.append(tuple(len(option.encode()) for option in question.scored) if asked else ())
        advance()
    left_out = sum(1 for one in likelihood if not one)
    if left_out == len(questions):
        raise MedmindError(
            f"none of the {left_out} questions fits a context of {context} tokens", "give a larger --context"
        )
    return AnswersResult(
        tuple(likelihood),
        tuple(alone),
        tuple(lengths),
        left_out,
        f"sha256:{digest.hexdigest()}",
        time.perf_counter() - began,
    )


def _tokens(language: turns.Language, asked: str, option: str, system: str) -> tuple[list[int], list[int]]:
    before = turns.framed([{"role": "user", "content": asked}], system)
    prompt, answer = turns.tokens(language, before, [*before, {"role": "assistant", "content": option}])
    return prompt, answer[:-1]
