"""What medmind does for one token is the same at token 2,000 as at token 50: counted by default, timed when slow."""

import io
import itertools
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.engine import Engine, Sampling
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.safety.careful import Careful
from medmind_runtime.terminal.markdown import Rendered

PERIOD = 250
"""Of the texts below: longer than the longest circle that ends an answer."""
NUMBERS = 512
"""Bytes: whole numbers up to 256 are there already in Python, larger ones are made."""
PASSAGE = (
    "Glaucoma is a group of diseases that can damage the optic nerve. It often has no early signs, so an eye exam "
    "matters. Ask your doctor how often 2 drops are needed; take no 500 mg tablets on your own. Many people keep their "
    "sight when it is found. "
).ljust(PERIOD, "-")[:PERIOD]


class LlamaStill:
    """llama.cpp, but nothing is computed and the tokens chosen are given."""

    def __init__(self, library: Any, script: Iterable[int]) -> None:
        self._library = library
        self._script = iter(script)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def llama_decode(self, _context: object, _batch: object) -> int:
        return 0

    def llama_sampler_sample(self, _sampler: object, _context: object, _row: int) -> int:
        return next(self._script)


Count = Callable[[Callable[[], object]], int]


def instructions(step: Callable[[], object]) -> int:
    """Python instructions that it executes."""
    counted = 0

    def count(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        step()
    finally:
        sys.settrace(before)
    return counted


def exchange(engine: Engine, library: Any) -> None:
    """What stands for llama.cpp where an answer is generated."""
    engine._parts = replace(engine._parts, lib=library)
    engine._open._lib = library


def allocations(step: Callable[[], object]) -> int:
    """Bytes that it holds at most, beyond what lay there before: a copy of all that was said shows."""
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def demand_even(count: Count, steps: Iterator[object], period: int, tolerance: float) -> None:
    """The steps from about the 50th token on cost what those from the 1,750th on cost.

    The costliest tenth of the steps is left out: lists grow in them, by more the longer they are and the more rarely.

    Args:
        count: how cost is counted.
        steps: what is done for the answer, in equal steps.
        period: steps after which the text repeats itself.
        tolerance: factor by which late ones may cost more.
    """
    means = []
    place = 0
    for begin in (period // 5, 7 * period):
        for _ in range(begin - place):
            next(steps)
        work = sorted(count(lambda: next(steps)) for _ in range(period))
        means.append(statistics.fmean(work[: -period // 10]))
        place = begin + period
    early, late = means
    slack = NUMBERS if count is allocations else 0
    assert late <= tolerance * early + slack, means


def test_what_is_counted_would_show_a_loop_or_a_copy_over_all_that_was_said() -> None:
    said: list[int] = []

    def looping() -> Iterator[None]:
        for place in itertools.count():
            said.append(place)
            sum(1 for _ in said[::100])
            yield

    def copying() -> Iterator[None]:
        for place in itertools.count():
            said.append(place)
            len([*said])
            yield

    with pytest.raises(AssertionError):
        demand_even(instructions, looping(), PERIOD, 1.05)
    said.clear()
    with pytest.raises(AssertionError):
        demand_even(allocations, copying(), PERIOD, 1.05)


@pytest.mark.parametrize("count", [instructions, allocations])
@pytest.mark.parametrize("guessing", [False, True])
def test_the_engine_does_for_token_2000_what_it_did_for_token_50(
    make_model: Callable[..., Path], guessing: bool, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(1)
    monkeypatch.setattr(
        "medmind_runtime.engine.speculation.time", SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    )
    script = [20 + ord(sign) for sign in PASSAGE] * 9
    with Engine.load(make_model(context=2560), threads=1) as engine:
        still: Any = LlamaStill(engine._parts.lib, script)
        exchange(engine, still)
        if guessing:
            engine._parts.exact.tried, engine._parts.exact.rows = True, 8
        answer = engine.generate([1, 3, 4], sampling=Sampling(), max_tokens=2100)
        demand_even(count, answer, PERIOD, 1.05)
        assert bool(engine.timings.accepted) == guessing


class WordEngine(FakeEngine):
    """Its tokens are words."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__([])
        self._words = words

    def detokenize(self, token: int) -> bytes:
        return self._words[token].encode()

    def is_end(self, token: int) -> bool:
        return False

    def generate(self, tokens: Sequence[int], **_options: Any) -> Iterator[int]:
        """Words over and over, in an order that repeats itself only after `PERIOD`."""
        order = random.Random(1)
        once = [order.randrange(len(self._words)) for _ in range(PERIOD)]
        return itertools.cycle(once)


@pytest.mark.parametrize("count", [instructions, allocations])
def test_a_conversation_does_for_token_2000_what_it_did_for_token_50(count: Count) -> None:
    engine = WordEngine([f"{word} " for word in sorted(set(PASSAGE.split()))])
    produced = 0
    real = engine.detokenize

    def told(token: int) -> bytes:
        nonlocal produced
        produced += 1
        return real(token)

    engine.detokenize = told  # type: ignore[method-assign]
    talk = Conversation(engine, system="", sampling=Sampling(), max_tokens=2100, guard=Careful(None))
    stream = talk.answer(talk.fit("what is glaucoma"))
    work: dict[int, int] = {}
    while produced < 2000:
        begun = produced
        spent = 0
        if 50 <= begun < 320 or begun > 1700:
            spent = count(lambda: next(stream))
        else:
            next(stream)
        for token in range(begun, produced):
            work[token] = spent // (produced - begun)
    early, late = (sum(work[token] for token in range(begin, begin + PERIOD)) for begin in (60, 1730))
    assert late <= 1.05 * early + (NUMBERS * PERIOD if count is allocations else 0)


@pytest.mark.parametrize("line", ["- one of many signs\n", "a line of code\n", "word after word "])
def test_a_long_block_is_not_read_again_with_every_word(line: str) -> None:
    shown = Rendered(Console(file=io.StringIO(), force_terminal=True, width=80, height=24))
    shown._draw = lambda: None  # type: ignore[method-assign]
    begin = "```\n" if "code" in line else ""

    def feed() -> Iterator[None]:
        for word in itertools.chain([begin], itertools.repeat(line)):
            shown.feed(word)
            yield

    demand_even(instructions, feed(), PERIOD, 1.05)


def test_drawing_a_long_block_takes_a_twentieth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now, spent = 0.0, 0.0

    def clock() -> float:
        return now

    monkeypatch.setattr("medmind_runtime.terminal.markdown.time", SimpleNamespace(monotonic=clock))
    shown = Rendered(Console(file=io.StringIO(), force_terminal=True, width=80, height=24))
    shown.feed("a ")
    live = shown._live
    assert live is not None

    def update(*_arguments: object, **_options: object) -> None:
        nonlocal now, spent
        now += 0.1
        spent += 0.1

    monkeypatch.setattr(live, "update", update)
    for _ in range(2000):
        now += 0.01
        shown.feed("word ")
    assert 0 < spent <= now / 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base in q4_k_m; MEDMIND_BENCH_MODEL names another file."""
    if named := os.environ.get("MEDMIND_BENCH_MODEL"):
        return Path(named)
    folder = tmp_path_factory.mktemp("base")
    arguments = ["gguf", "q4_k_m", "medmind-base", "--out", str(folder), "--name", "m"]
    subprocess.run([sys.executable, "-m", "medmind_convert.cli", *arguments], check=True, capture_output=True)
    return folder / "m.q4_k_m.gguf"


class LlamaTimed(LlamaStill):
    """llama.cpp, told which token to choose; the seconds spent in it are kept."""

    inside = 0.0

    def llama_decode(self, context: object, batch: object) -> int:
        begun = time.perf_counter()
        status = int(self._library.llama_decode(context, batch))
        self.inside += time.perf_counter() - begun
        return status

    def llama_sampler_sample(self, sampler: object, context: object, row: int) -> int:
        begun = time.perf_counter()
        self._library.llama_sampler_sample(sampler, context, row)
        self.inside += time.perf_counter() - begun
        return super().llama_sampler_sample(sampler, context, row)


def per_token(path: Path, text: str, *, computing: bool) -> tuple[list[float], list[float]]:
    """Seconds of each token of an answer in a guarded conversation: all, and those outside llama.cpp."""
    with Engine.load(path, threads=1) as engine:
        script = engine.tokenize(text, special=False)[:1960]
        library: Any = (LlamaTimed if computing else LlamaStill)(engine._parts.lib, script)
        exchange(engine, library)
        talk = Conversation(engine, system="", sampling=Sampling(), max_tokens=len(script), guard=Careful(None))
        marks: list[tuple[float, float]] = []
        real = engine.detokenize

        def told(token: int) -> bytes:
            marks.append((time.perf_counter(), getattr(library, "inside", 0.0)))
            return real(token)

        engine.detokenize = told  # type: ignore[method-assign]
        for _ in talk.answer(talk.fit("what is it")):
            pass
    pairs = list(itertools.pairwise(marks))
    return [b[0] - a[0] for a, b in pairs], [(b[0] - a[0]) - (b[1] - a[1]) for a, b in pairs]


def decode_alone(path: Path, position: int) -> list[float]:
    """Seconds of llama_decode for tokens from `position` on."""
    with Engine.load(path, threads=1) as engine:
        decoder, spent = engine._open, []
        decoder.evaluate([5 + place % 300 for place in range(position)], 0, first_output=position - 1)
        for place in range(position, position + 50):
            begun = time.perf_counter()
            decoder.evaluate([7], place, first_output=place)
            spent.append(time.perf_counter() - begun)
    return spent


@pytest.mark.slow
def test_token_2000_takes_what_llama_cpp_takes_for_it(trained: Path) -> None:
    """Least of a few runs, token by token, so that other programs disturb it little."""
    order = random.Random(1)
    words = sorted(set(PASSAGE.split()))
    text = " ".join(order.choice(words) for _ in range(1900))
    places = (50, 1900)

    def least(runs: list[list[float]], place: int) -> float:
        return statistics.median(min(run[at] for run in runs) for at in range(place - 25, place + 25))

    totals: list[list[float]] = []
    outside: list[list[float]] = []
    still: list[list[float]] = []
    alone: dict[int, list[list[float]]] = {place: [] for place in places}
    for _ in range(5):
        total, own = per_token(trained, text, computing=True)
        totals.append(total)
        outside.append(own)
        still.append(per_token(trained, text, computing=False)[0])
        for place in places:
            alone[place].append(decode_alone(trained, place - 25))
    for name, runs in (("total", totals), ("outside llama.cpp", outside), ("outside, nothing computed", still)):
        print(f"{name}: " + ", ".join(f"token {place} {1e6 * least(runs, place):.0f} us" for place in places))
    took = {place: least(runs, 25) for place, runs in alone.items()}
    print("llama_decode alone: " + ", ".join(f"token {place} {1e6 * took[place]:.0f} us" for place in places))
    early, late = (least(totals, place) for place in places)
    assert least(still, places[1]) <= 1.1 * least(still, places[0])
    assert late / early <= 1.1 * took[places[1]] / took[places[0]]
