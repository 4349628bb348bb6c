"""One measurement of one model in a process of its own: `python -m medmind_benchmarks.cell`.

The request is one JSON line on stdin, which the parent then keeps open: when it closes, the parent is gone and the cell
ends itself. Answers are JSON lines on stdout: {"progress": n} while it works, then {"result": …} or {"error": …}.
"""

import dataclasses
import hashlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medmind import llama
from medmind.console import quiet_libraries
from medmind.errors import MedmindError
from medmind.memory import Resident, resident
from medmind.turns import Language
from medmind_benchmarks.examples import build, read_rows
from medmind_benchmarks.figures import Memory
from medmind_benchmarks.typed_json import decode

if TYPE_CHECKING:
    from medmind_runtime.engine import Engine

BATCH = 512
"""Prompt tokens llama.cpp computes at once; llama-bench's default for its micro-batch."""
MEASURE_SECONDS = 0.4
"""A speed is taken over at least this long: a tiny model computes a prompt in less than a scheduler's hiccup."""
_LEAD = 8
"""Tokens in the KV cache before generation is timed."""

Open = Callable[[Path, int, int], AbstractContextManager["Engine"]]


@dataclass(frozen=True)
class Request:
    """What a cell is to measure.

    Attributes:
        kind: `perplexity` over the rows, or `speed` with the rows as text.
        heldout, rows: the file, and the indices of the rows to use.
        context: tokens; examples are cut there and the KV cache is that long.
        system_prompt: as the model was trained with.
        prompt_tokens, generated_tokens: of a speed measurement.
        turn: number of the round; shifts the text so that rounds differ.
    """

    kind: Literal["perplexity", "speed"]
    model: str
    heldout: str
    rows: tuple[int, ...]
    context: int
    threads: int
    system_prompt: str
    prompt_tokens: int
    generated_tokens: int
    turn: int


@dataclass(frozen=True)
class PerplexityResult:
    """Per row (same order as the request): summed negative log-likelihood in nats, and answer tokens."""

    nll: tuple[float, ...]
    tokens: tuple[int, ...]
    answers: int
    cut: int
    dropped: int
    token_digest: str
    seconds: float


@dataclass(frozen=True)
class SpeedResult:
    """Tokens per second, seconds to load, and memory, of one fresh process."""

    prompt: float
    generation: float
    load_seconds: float
    memory: Memory


def measure(request: Request, open_model: Open, advance: Callable[[], None]) -> PerplexityResult | SpeedResult:
    """Do what `request` asks; `advance` is called after every row.

    Raises:
        MedmindError: the model cannot be loaded or scored.
    """
    baseline = resident().now
    began = time.perf_counter()
    with open_model(Path(request.model), request.context, request.threads) as engine:
        loaded = time.perf_counter() - began
        if request.kind == "perplexity":
            return _perplexity(request, engine, advance)
        return _speed(request, engine, baseline, loaded)


def _perplexity(request: Request, engine: "Engine", advance: Callable[[], None]) -> PerplexityResult:
    began = time.perf_counter()
    rows = read_rows(Path(request.heldout))
    nll, tokens = [], []
    answers = cut = dropped = 0
    digest = hashlib.sha256()
    language = speak(engine)
    for index in request.rows:
        examples, lost = build(
            language, rows[index]["messages"], context=request.context, system_prompt=request.system_prompt
        )
        total = 0.0
        for example in examples:
            total -= math.fsum(engine.log_probs(example.tokens, example.start).tolist())
            digest.update(json.dumps([example.tokens, example.start]).encode())
        if not math.isfinite(total):
            raise MedmindError(f"the model gives a probability of zero or not-a-number in row {index + 1}")
        nll.append(total)
        tokens.append(sum(len(example.tokens) - example.start for example in examples))
        answers += len(examples)
        cut += sum(example.cut for example in examples)
        dropped += lost
        advance()
    if sum(tokens) == 0:
        raise MedmindError(f"no answer of the {len(request.rows)} rows fits a context of {request.context} tokens")
    return PerplexityResult(
        tuple(nll),
        tuple(tokens),
        answers,
        cut,
        dropped,
        f"sha256:{digest.hexdigest()}",
        time.perf_counter() - began,
    )


def speak(engine: "Engine") -> Language:
    """A GGUF's template and tokenizer as `medmind.turns` wants them."""
    return Language(
        render=lambda messages, generate: engine.render(messages, add_generation_prompt=generate),
        tokenize=lambda text: engine.tokenize(text, special=True),
        controls=[token.text for token in engine.vocabulary.controls],
        eos=engine.vocabulary.eos,
        bos=engine.vocabulary.bos if engine.vocabulary.bos >= 0 else None,
    )


def _speed(request: Request, engine: "Engine", baseline: int, loaded: float) -> SpeedResult:
    stream = _text_tokens(request, engine)
    windows = _windows(stream, request.prompt_tokens, request.turn)
    _first_token(engine, next(windows))  # warm-up: touches every weight and every buffer once
    prompt = _rate(request.prompt_tokens, lambda: _timed(lambda: _first_token(engine, next(windows))))
    lead = next(windows)[:_LEAD]
    generation = _rate(request.generated_tokens, lambda: _generation_seconds(engine, lead, request.generated_tokens))
    memory = engine.memory
    end: Resident = resident()
    return SpeedResult(
        prompt,
        generation,
        loaded,
        Memory(
            load_mode="auto",
            context=engine.context,
            weights=memory.weights,
            repacked=memory.repacked,
            kv_cache=memory.kv_cache,
            compute=memory.compute,
            library=baseline,
            peak=end.peak,
            anonymous=end.anonymous,
            file_backed=end.file_backed,
        ),
    )


def _text_tokens(request: Request, engine: "Engine") -> list[int]:
    """Token ids of held-out text, enough for a few different prompts."""
    rows = read_rows(Path(request.heldout))
    stream: list[int] = []
    for index in request.rows:
        for message in rows[index]["messages"]:
            stream += engine.tokenize(message["content"], special=False)
        if len(stream) >= 4 * request.prompt_tokens:
            break
    if len(set(stream)) < 2:
        raise MedmindError("the held-out rows hold too little text to make a prompt of")
    return stream


def _windows(stream: Sequence[int], length: int, turn: int) -> Iterator[list[int]]:
    """Prompts of `length` tokens; each begins with another token than the one before, so that no prefix is reused."""
    offset = turn * 17
    previous = None
    while True:
        offset += 1
        if stream[offset % len(stream)] == previous:
            continue
        previous = stream[offset % len(stream)]
        start = offset % len(stream)
        yield list(islice(cycle([*stream[start:], *stream[:start]]), length))


def _rate(tokens: int, run: Callable[[], float]) -> float:
    """Tokens per second over as many runs of `tokens` tokens as take MEASURE_SECONDS, at least one."""
    seconds, runs = 0.0, 0
    while seconds < MEASURE_SECONDS:
        seconds += run()
        runs += 1
    return runs * tokens / seconds


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _first_token(engine: "Engine", prompt: Sequence[int]) -> int | None:
    from medmind_runtime.sampling import Sampling

    for token in engine.generate(prompt, sampling=Sampling(temperature=0), max_tokens=1):
        return token
    return None


def _generation_seconds(engine: "Engine", lead: Sequence[int], count: int) -> float:
    """Seconds for `count` tokens one by one after `lead`; a model that would stop is made to go on."""
    from medmind_runtime.sampling import Sampling

    tokens = list(lead)
    first = _first_token(engine, tokens)  # computes the lead, so that the clock sees single tokens only
    tokens.append(tokens[0] if first is None else first)
    goal = len(tokens) + count
    began = time.perf_counter()
    while len(tokens) < goal:
        before = len(tokens)
        tokens += engine.generate(tokens, sampling=Sampling(temperature=0), max_tokens=goal - before)
        if len(tokens) == before:
            tokens.append(lead[before % len(lead)])
        elif engine.is_end(tokens[-1]):  # left there, it would call for another end, and another start
            tokens[-1] = lead[before % len(lead)]
    return time.perf_counter() - began


def _open_model(path: Path, context: int, threads: int) -> AbstractContextManager["Engine"]:
    from medmind_runtime.engine import Engine

    return Engine.load(path, context=context, threads=threads, batch=BATCH)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Read the request from stdin, measure, answer on stdout."""
    quiet_libraries()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not land among the answers

    def say(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document, allow_nan=False) + "\n")
        answers.flush()

    request = decode(Request, json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from medmind_runtime import engine

        assert engine
        llama.load()
        done = iter(range(1, sys.maxsize))
        result = measure(request, _open_model, lambda: say({"progress": next(done)}))
        say({"result": dataclasses.asdict(result)})
    except MedmindError as error:
        say({"error": str(error)})
    except MemoryError:
        say({"error": "the system had no memory left"})


if __name__ == "__main__":
    main()
