"""Which texts a benchmark scores, and what the report says of them: held-out answers and raw text.

Knows where a text comes from; the token ids are made by `texts`.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medmind.artifacts import sha256
from medmind.errors import MedmindError
from medmind_benchmarks import base_origin, row_codec, texts
from medmind_benchmarks.examples import Example
from medmind_benchmarks.model_file import ModelFile
from medmind_benchmarks.results import HeldOut, RawText
from medmind_benchmarks.row_codec import Base
from medmind_benchmarks.sources import Sources
from medmind_benchmarks.texts import Speaker, Text


@dataclass(frozen=True)
class Texts:
    """The texts of a benchmark; None for one that is not wanted, or not to be had.

    Attributes:
        answers, held_out: token ids, and what they were made of.
        raw, raw_text: the same of raw text.
        raw_gap: why there is no raw text though it was wanted.
        kl_base: the file of log-probabilities that raw text came from, if it did.
        kl_doubt: what speaks against comparing these models with it, in words.
        vocabulary: tokens of it.
    """

    answers: Text | None
    held_out: HeldOut | None
    raw: Text | None
    raw_text: RawText | None
    raw_gap: str
    kl_base: Base | None
    kl_doubt: str
    vocabulary: int

    @staticmethod
    def make(
        spoken: Speaker,
        model: ModelFile,
        sources: Sources,
        *,
        rows: Sequence[Mapping[str, Any]],
        chosen: Sequence[int],
        context: int,
        system_prompt: str,
        chunk: int,
        chunks: int,
        wanted: Collection[str],
    ) -> "Texts":
        """Tokenize what is wanted.

        Raises:
            MedmindError: rows of which no answer fits; a given text that is too short, or of another vocabulary.
        """
        answers = held_out = raw = raw_text = kl_base = None
        gap = doubt = ""
        if "answers" in wanted:
            answers = texts.answers(spoken, rows, chosen, context=context, system_prompt=system_prompt)
            held_out = _held_out(sources, len(rows), answers)
        if "raw" in wanted and sources.kl_base:
            kl_base = row_codec.read_base(sources.kl_base)
            raw, raw_text = _of_base(spoken, kl_base, chunks)
            doubt = base_origin.check(kl_base, raw_text.digest, model, spoken)
        elif "raw" in wanted:
            content = texts.read_raw(sources.text) if sources.text else texts.joined([rows[index] for index in chosen])
            name = sources.text.name if sources.text else "held-out rows"
            try:
                raw, length = texts.raw(spoken, content, chunk=chunk, most=chunks, where=name)
            except MedmindError as error:
                if sources.text:
                    raise
                gap = str(error)
            else:
                digest = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
                raw_text = RawText(name, digest, length, chunk, len(raw.groups), length // chunk)
        return Texts(answers, held_out, raw, raw_text, gap, kl_base, doubt, spoken.size)


def _held_out(sources: Sources, rows_in_file: int, answers: Text) -> HeldOut:
    assert sources.heldout
    return HeldOut(
        file=sources.heldout.name,
        digest=sha256(sources.heldout),
        rows_in_file=rows_in_file,
        rows=sum(1 for count in answers.tokens if count),
        answers=sum(len(group) for group in answers.groups),
        tokens=sum(answers.tokens),
        cut=answers.cut,
        dropped=answers.dropped,
        token_digest=answers.digest,
    )


def _of_base(spoken: Speaker, base: Base, most: int) -> tuple[Text, RawText]:
    if base.vocabulary != spoken.size:
        raise MedmindError(
            f"{base.path} is of a model with {base.vocabulary} tokens, these have {spoken.size}",
            "give a file made with a model of the same vocabulary",
        )
    tokens = np.array(base.tokens[: most or None])
    if spoken.add_bos:
        tokens[:, 0] = spoken.bos
    start = base.chunk // 2 + 1
    groups = tuple((Example(tuple(chunk), start, cut=False),) for chunk in tokens.tolist())
    about = RawText(base.path.name, sha256(base.path), int(base.tokens.size), base.chunk, len(groups), len(base.tokens))
    return Text(base.chunk, groups, 0, 0), about
