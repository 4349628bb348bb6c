"""What reading ahead spares: seconds from a question to the first text of its answer, with and without, in turn.

    python scripts/measure_reading_ahead.py FILE.gguf --out FILE.json [--threads 1] [--pairs 10] [--max-tokens 512]
        [--library FILE]

The conversation is chat's own, with its guard and prompts, in one process: a first question, a second one, and that
once more, as /regen asks it: after what is done behind every prompt, and right behind its answer, the KV cache as it
was left. Whoever asks is taken to type for as long as it takes to read ahead. A first pair, which may have to read from
the disk, is not counted; other answers with than without end it.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medmind import processor
from medmind_runtime.config import ChatConfig
from medmind_runtime.conversation import Conversation
from medmind_runtime.interruption import never
from medmind_runtime.session import guard_for, open_model

SYSTEM = "Answer in plain words for a patient, and say when a doctor should be seen."
QUESTIONS = {"first": "What is asthma?", "second": "How can I prevent a stroke?", "again": "", "at_once": ""}
TEMPERATURE, SEED = 1.0, 1
"""At 0 a small model soon goes round in a circle, and is stopped."""


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        read_ahead_seconds: computed before it.
        first_text_seconds: from Enter to the first text, what the guard does and the prompt's making included.
        prompt_tokens: all of the prompt.
        evaluated_tokens: those of them that were evaluated after Enter.
        answer_tokens: of the answer.
    """

    read_ahead_seconds: float
    first_text_seconds: float
    prompt_tokens: int
    evaluated_tokens: int
    answer_tokens: int


def asked(talk: Conversation, what: str, *, read_ahead: bool) -> tuple[Asked, str]:
    """What one of `QUESTIONS` took, an empty one being the last once more; and the answer."""
    question = QUESTIONS[what]
    began = time.perf_counter()
    if what != "at_once":
        talk.read_ahead(never if read_ahead else lambda: True)
    entered = time.perf_counter()
    if not question:
        turn = talk.undo()
        assert turn is not None
        question = turn.question
    answer = talk.answer(talk.with_known(talk.fit(question)))
    text = next(answer)
    first = time.perf_counter()
    text += "".join(answer)
    assert talk.last is not None
    spent = talk.last.timings
    new = spent.prompt_tokens - spent.reused
    return Asked(entered - began, first - entered, spent.prompt_tokens, new, spent.generated_tokens), text


def conversation(talk: Conversation, *, read_ahead: bool) -> tuple[dict[str, Asked], Sequence[str]]:
    """All questions, from an empty cache, and the answers."""
    talk.clear()
    talk.engine.evaluate([0], cancel=lambda: True)  # begins no prompt: all goes
    found = {what: asked(talk, what, read_ahead=read_ahead) for what in QUESTIONS}
    return {what: one for what, (one, _) in found.items()}, [answer for _, answer in found.values()]


def main() -> None:
    """Measure both in turn, write one JSON document and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--library", type=Path, help="answer from it, as medmind-chat --library does")
    given = parser.parse_args()
    config = ChatConfig(
        system=SYSTEM,
        temperature=TEMPERATURE,
        seed=SEED,
        threads=given.threads,
        max_tokens=given.max_tokens,
        library=given.library,
    )
    opened = open_model(given.model, config, guard_for(config))
    runs: list[dict[str, dict[str, Asked]]] = []
    for pair in range(given.pairs + 1):
        both, answers = {}, []
        for read_ahead in (True, False) if pair % 2 else (False, True):
            both["with" if read_ahead else "without"], said = conversation(opened.conversation, read_ahead=read_ahead)
            answers.append(said)
        if answers[0] != answers[1]:
            raise SystemExit("reading ahead has changed an answer")
        runs.append(both)
    opened.close()
    del runs[0]
    for what in QUESTIONS:
        for how in ("with", "without"):
            times = [run[how][what].first_text_seconds for run in runs]
            sys.stderr.write(f"{what} {how}: {statistics.median(times):.3f} s ({min(times):.3f} to {max(times):.3f})\n")
    document = {
        "schema": "medmind-reading-ahead/1",
        "model": given.model.name,
        "machine": {
            "processor": processor.name(),
            "cores": os.cpu_count(),
            "threads": given.threads,
            "load_average": os.getloadavg()[0],
        },
        "versions": {name: importlib.metadata.version(name) for name in ("medmind", "llama-cpp-python")},
        "max_tokens": given.max_tokens,
        "system": SYSTEM,
        "questions": QUESTIONS,
        "sampling": {"temperature": TEMPERATURE, "seed": SEED},
        "library": given.library and given.library.name,
        "runs": [
            {how: {what: asdict(one) for what, one in asked.items()} for how, asked in both.items()} for both in runs
        ],
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
