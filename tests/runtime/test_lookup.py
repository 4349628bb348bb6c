"""Guessing ahead changes how soon an answer comes and nothing else."""

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medmind import llama
from medmind_runtime.engine import attention, speculation
from medmind_runtime.engine.decoder import KvType
from medmind_runtime.engine.engine import Engine, Sampling
from medmind_runtime.engine.lookup import MOST_ROWS, ROWS, SIZES, Kind, Lookup, Pace
from medmind_runtime.engine.speculation import Ahead, Exact, cache_type
from medmind_runtime.engine.timings import Timings
from medmind_runtime.interruption import Interrupted, never

from .conftest import write_k_quant, write_model

KINDS = [Kind(size, said, agreed) for size in SIZES for said in (False, True) for agreed in (None, True, False)]
QUOTED = [1, 3, *(20 + i * 7 % 250 for i in range(60)), *(20 + i * 7 % 250 for i in range(30)), 4]


def test_a_draft_is_what_followed_the_longest_ending_last() -> None:
    long = [*range(1, 9)]
    lookup = Lookup([*long, 50, 51, *long[-4:], 60, 61, *long])

    def draft(most: int) -> tuple[int, list[int]]:
        tokens, kinds = lookup.draft(most)
        assert len(kinds) == len(tokens)
        return max((kind.size for kind in kinds), default=0), tokens

    assert draft(2) == (8, [50, 51])  # after 1 2 3 ... 8, not the later 5 6 7 8
    lookup.add(60)
    assert draft(3) == (4, [61, 1, 2])  # after 6 7 8 60
    lookup.add(99)
    assert draft(9) == (0, [])
    lookup.add(61)
    assert draft(2) == (1, [1, 2])
    for few in ([5], []):
        assert Lookup(few).draft(3) == ([], [])


def test_a_guess_is_of_the_kind_of_what_followed_twice_once_or_here_differently() -> None:
    lookup = Lookup([1, 2, 40, 41, 42, 43, 1, 2, 40, 41, 50, 43, 1])
    lookup.add(2)
    tokens, kinds = lookup.draft(5)
    assert tokens == [40, 41, 50, 43, 1]
    assert [kind.agreed for kind in kinds] == [True, True, False, None, None]
    assert {(kind.size, kind.said) for kind in kinds} == {(2, False)}
    for token in (7, 8, 7):
        lookup.add(token)
    assert lookup.draft(1) == ([8], [Kind(1, said=True, agreed=None)])


def pace_through(said: Sequence[Mapping[Kind, bool]], costs: Sequence[Mapping[int, float]]) -> tuple[float, float]:
    """Seconds with guesses, where a single token takes one; and the most that was lost on the way.

    Args:
        said: for each place in the text, by kind of guess, whether it is right.
        costs: for each place, of so many rows.
    """
    pace = Pace()
    place, spent, lost = 0, 0.0, 0.0
    while place < len(said):
        kinds = [KINDS[place % len(KINDS)]] * min(MOST_ROWS - 1, len(said) - place - 1)
        rows = 1 + pace.length(kinds)
        right = next((n for n in range(rows - 1) if not said[place + n][kinds[n]]), rows - 1)
        spent += costs[place][rows]
        if rows > 1:
            pace.batch(costs[place][rows], kinds[: rows - 1], right)
        else:
            pace.single(1.0)
        place += right + 1
        lost = max(lost, spent - place - 0.005 * place)
    return spent, lost


COMPUTING = {1: 1.0, 2: 1.8, 4: 3.2, 8: 7.5}
"""A CPU that is busy with one token already."""
WAITING = {1: 1.0, 2: 1.07, 4: 1.8, 8: 3.1}
"""A CPU that waits for the weights: q8_0 on one thread of a CPU of 2021."""


@pytest.mark.parametrize("costs", [COMPUTING, WAITING, {rows: float(rows) for rows in (1, *ROWS)}])
@pytest.mark.parametrize("right", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_guessing_never_costs_more_than_two_tokens_and_half_a_percent(costs: dict[int, float], right: float) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        said = [dict.fromkeys(KINDS, chance.random() < right) for _ in range(1500)]
        spent, lost = pace_through(said, [costs] * len(said))
        assert lost <= 2 + 1e-9
        if right == 1 and costs is WAITING:
            assert spent < 0.45 * len(said)
        if right == 0.8 and costs is WAITING:
            assert spent < 0.7 * len(said)


def test_guessing_never_costs_more_where_every_guess_is_made_to_fail_once_it_is_trusted() -> None:
    for period in (10, 50, 300):
        said = [dict.fromkeys(KINDS, place // period % 2 == 0) for place in range(3000)]
        _, lost = pace_through(said, [WAITING] * len(said))
        assert lost <= 2 + 1e-9


def test_guessing_returns_after_a_busy_moment_and_with_another_text() -> None:
    quotes = [dict.fromkeys(KINDS, True)] * 2000
    busy = [{1: 1.0, 2: 9.0, 4: 9.0, 8: 9.0}] * 20 + [WAITING] * 1980
    assert pace_through(quotes, busy)[0] < 0.75 * len(quotes)
    changes = [dict.fromkeys(KINDS, place > 1000) for place in range(3000)]
    assert pace_through(changes, [WAITING] * 3000)[0] < 0.75 * 3000


def test_a_draft_ends_where_what_followed_twice_has_parted() -> None:
    pace, sure, parted = Pace(), Kind(8, said=False, agreed=True), Kind(8, said=False, agreed=False)
    pace.single(1.0)
    for rows in ROWS:
        pace.batch(WAITING[rows], [sure] * (rows - 1), rows - 1)
    for _ in range(9):
        pace.batch(WAITING[2], [parted], 0)
    assert pace.length([sure] * 7) == 7
    assert pace.length([sure] * 3 + [parted] + [sure] * 3) == 3
    assert pace.length([parted] * 7) == 0


class Paper:
    """A model whose next token follows from the whole text; in batches of `inexact` rows or more it errs."""

    def __init__(self, inexact: int = 99) -> None:
        self.text: list[int] = []
        self.cells: list[tuple[int, bool]] = []
        self.rows: list[bytes] = []
        self.inexact = inexact
        self.evaluations = 0
        self.stop_at = 0
        self.lookup_text: list[int] = []

    def evaluate(
        self, tokens: Sequence[int], begin: int, *, first_output: int, cancel: Callable[[], bool] = never
    ) -> None:
        assert [token for token, _ in self.cells] == self.text[:begin]
        assert tokens[0] == self.text[begin]
        self.evaluations += 1
        if self.evaluations == self.stop_at:
            raise Interrupted
        wrong = begin > 0 and len(tokens) >= self.inexact
        self.rows = []
        for place, token in enumerate(tokens, begin):
            self.cells.append((token, wrong))
            if place >= first_output:
                spoilt = sum(bad for _, bad in self.cells)
                self.rows.append(bytes([self.next([token for token, _ in self.cells]), spoilt % 251]))

    def next(self, tokens: Sequence[int]) -> int:
        """Mostly what came 20 tokens before."""
        return tokens[-20] if sum(tokens) % 11 else sum(tokens[-3:]) % 50

    def cut(self, length: int) -> bool:
        del self.cells[length:]
        return True

    def logits(self, row: int) -> bytes:
        return self.rows[row]

    def answer(self, prompt: list[int], count: int, exact: Exact) -> tuple[list[int], Timings]:
        timings, sequence = Timings(), list(prompt)
        ahead = Ahead(self, lambda: [*self.lookup_text, *prompt], exact, timings, never)
        self.text, self.cells = sequence, []
        self.evaluate(prompt, 0, first_output=len(prompt) - 1)
        row = -1
        for left in reversed(range(count)):
            if left < count - 1:
                row = ahead.row(sequence, left)
            assert self.rows[row][1] == 0  # no cell was written by a batch that errs
            sequence.append(self.rows[row][0])
        ahead.settle(len(sequence) - 1)
        assert len(self.cells) == len(sequence) - 1
        return sequence[len(prompt) :], timings


@pytest.mark.parametrize("inexact", [2, 3, 5, 99])
def test_batches_that_err_are_noticed_and_leave_nothing_behind(inexact: int) -> None:
    rng = random.Random(1)
    for _ in range(20):
        prompt = [rng.randrange(50) for _ in range(40)]
        plain, _ = Paper().answer(prompt, 150, Exact(hopeless=True))
        exact = Exact()
        said, timings = Paper(inexact).answer(prompt, 150, exact)
        assert said == plain
        assert exact.rows == max([1, *(rows for rows in ROWS if rows < inexact)])
        assert timings.accepted <= timings.drafted
        assert (timings.drafted > 0) == (inexact > 2)


def test_what_is_not_in_the_prompt_can_be_guessed_from_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(speculation, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))  # rows cost one tick
    monkeypatch.setattr(Paper, "next", lambda _paper, tokens: (len(tokens) ** 3 + 7 * tokens[-1]) % 251)  # no repeats
    rng = random.Random(3)
    prompt = [rng.randrange(50) for _ in range(40)]
    plain, _ = Paper().answer(prompt, 150, Exact(hopeless=True))
    found = []
    for lookup_text in ([], plain):
        paper = Paper()
        paper.lookup_text = lookup_text
        said, timings = paper.answer(prompt, 150, Exact())
        assert said == plain
        found.append(timings.accepted)
    assert found[0] < 15
    assert found[1] > 100


def test_nothing_is_looked_up_before_the_first_token_or_where_batches_err() -> None:
    asked: list[int] = []

    def given() -> list[int]:
        asked.append(1)
        return [1, 2, 3]

    for hopeless in (True, False):
        paper = Paper()
        paper.text = [*range(30)]
        ahead = Ahead(paper, given, Exact(hopeless=hopeless), Timings(), never)
        paper.evaluate(paper.text[:-1], 0, first_output=28)
        assert not asked
        ahead.row(paper.text, 9)
    assert asked == [1]


@pytest.mark.parametrize("stop_at", range(8, 16))
def test_an_interruption_while_batches_are_tried_leaves_no_cell_that_errs(stop_at: int) -> None:
    paper = Paper(inexact=3)
    paper.stop_at = stop_at
    with pytest.raises(Interrupted):
        paper.answer(list(range(40)), 30, Exact())
    assert not any(wrong for _, wrong in paper.cells)


def test_only_files_that_may_gain_are_tried_and_the_cache_of_q8_0_is_one_that_is_exact() -> None:
    header: dict[str, str | int] = {"general.architecture": "llama", "general.file_type": 7}
    header |= {"llama.embedding_length": 128, "llama.attention.head_count": 4}
    assert cache_type(header, built=False) == "bf16"
    assert cache_type(header, built=True) == "f16"
    assert cache_type(header | {"llama.attention.key_length": 80}, built=True) == "bf16"
    assert cache_type(header | {"general.file_type": 15}, built=False) == "f16"
    assert cache_type(header | {"general.architecture": "gemma"}, built=False) == "f16"
    assert cache_type({}, built=False) == "f16"
    assert [attention.same_bits(kind, own=False) for kind in ("f16", "bf16")] == [False, True]
    assert attention.same_bits("f16", own=True)
    tried = {
        (kind, same_bits, built)
        for kind, same_bits, built in itertools.product(("1", "7", "12", "15", "18"), (True, False), (True, False))
        if not Exact.of({"general.file_type": kind}, same_bits=same_bits, built=built).tried
    }
    assert tried == {("7", True, True), ("15", True, True), ("18", True, True), ("7", True, False)}
    experts = {"general.architecture": "llama", "general.file_type": "15", "llama.expert_count": "8"}
    assert Exact.of(experts, same_bits=True, built=True).tried


@pytest.fixture(scope="module", params=["q8_0", "q4_k_m"])
def quoting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quoting")
    if request.param == "q8_0":
        return write_model(folder / "q8_0.gguf", quantized=True, width=128, head=32)
    if not llama.own_products():
        pytest.skip("llama.cpp's own products of K quants are not to the bit alike")
    return write_k_quant(folder / "q4_k_m")


def foretell(monkeypatch: pytest.MonkeyPatch, text: Sequence[int]) -> None:
    """Draft what is going to be said, every ninth token excepted: a model of random weights quotes nothing."""

    def draft(lookup: Lookup, most: int) -> tuple[list[int], list[Kind]]:
        place = len(lookup._tokens)
        tokens = [token if at % 9 else 7 for at, token in enumerate(text[place : place + most], place)]
        return tokens, KINDS[:1] * len(tokens)

    def most_rows(_pace: Pace, kinds: Sequence[Kind]) -> int:
        return max((rows - 1 for rows in ROWS if rows - 1 <= len(kinds)), default=0)

    monkeypatch.setattr(Lookup, "draft", draft)
    monkeypatch.setattr(Pace, "length", most_rows)
    monkeypatch.setattr(Pace, "batch", lambda _pace, _seconds, _kinds, _accepted: None)


@pytest.mark.parametrize(
    ("threads", "kv_type", "temperature"), [(1, "f16", 0.0), (1, "bf16", 0.0), (2, "f16", 0.7), (2, "q8_0", 0.0)]
)
def test_answers_are_the_same_with_and_without(
    quoting: Path, threads: int, kv_type: KvType, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Engine.load(quoting, lookup=True, threads=threads, kv_type=kv_type) as ahead,
        Engine.load(quoting, threads=threads, kv_type=kv_type) as plain,
    ):
        for prompt in (QUOTED, [*QUOTED, 5], (QUOTED * 9)[: plain.context - 9], (QUOTED * 9)[: plain.context - 1]):
            sampling = Sampling(temperature=temperature, seed=5)
            expected = list(plain.generate(prompt, sampling=sampling, max_tokens=150))
            foretell(monkeypatch, [*prompt, *expected])
            assert list(ahead.generate(prompt, sampling=sampling, max_tokens=150)) == expected
            assert len(expected) == min(150, plain.context - len(prompt))
            if len(expected) == 150:
                assert 80 < ahead.timings.accepted < ahead.timings.drafted
            following = [*prompt[:90], *expected[:30], 5]
            for one in (ahead, plain):
                list(one.generate(following, sampling=sampling, max_tokens=1))
            assert ahead.timings.reused == plain.timings.reused  # nothing of a draft is taken for the conversation


def test_an_engine_guesses_from_the_prompt_and_what_is_set_aside(
    quoting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[int]] = []

    class Noted(Lookup):
        def __init__(self, given: Iterable[int]) -> None:
            found.append(list(given))
            super().__init__(found[-1])

    monkeypatch.setattr("medmind_runtime.engine.speculation.Lookup", Noted)
    with Engine.load(quoting, threads=1, lookup=True) as engine:
        for lookup_text in ("", "</s> drink water"):
            list(engine.generate(QUOTED, sampling=Sampling(), max_tokens=3, lookup_text=lookup_text))
            assert found.pop() == [*engine.tokenize(lookup_text, special=False), *QUOTED]


def test_stopping_in_the_middle_of_a_draft_leaves_the_cache_usable(
    quoting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Engine.load(quoting, threads=1, kv_type="bf16") as plain,
        Engine.load(quoting, threads=1, kv_type="bf16", lookup=True) as engine,
    ):
        expected = list(plain.generate(QUOTED, sampling=Sampling(), max_tokens=60))
        foretell(monkeypatch, [*QUOTED, *expected])

        def say(allowed: int) -> list[int]:
            calls = itertools.count()
            return list(
                engine.generate(QUOTED, sampling=Sampling(), max_tokens=60, cancel=lambda: next(calls) > allowed)
            )

        assert say(10**9) == expected
        assert engine.timings.accepted
        for allowed in range(0, 1200, 41):
            said = say(allowed)
            assert said == expected[: len(said)]
            assert say(10**9) == expected
        for length in range(20, 30):  # a reader that stops reading
            answer: Any = engine.generate(QUOTED, sampling=Sampling(), max_tokens=60)
            said = list(itertools.islice(answer, length))
            answer.close()
            tokens, _ = engine._open.state()
            assert tokens == [*QUOTED, *said][: len(tokens)]  # nothing guessed is kept with the conversation
            assert len(tokens) >= len(QUOTED) + length - 1
        assert say(10**9) == expected


@pytest.mark.parametrize(("threads", "kv_type"), [(1, "f16"), (2, "f16"), (2, "bf16"), (2, "q8_0")])
def test_several_tokens_at_once_have_the_bits_of_single_ones(quoting: Path, threads: int, kv_type: KvType) -> None:
    draw = random.Random(5)
    with Engine.load(quoting, context=512, threads=threads, kv_type=kv_type) as engine:
        tokens = [draw.randrange(5, len(engine.vocabulary)) for _ in range(480)]
        decoder = engine._open

        def logits(rows: int) -> list[bytes]:
            """Of every position, evaluated so many at once."""
            decoder.keep_prefix([])
            found = []
            for begin in range(0, len(tokens), rows):
                decoder.evaluate(tokens[begin : begin + rows], begin, first_output=0, cancel=never)
                found += [decoder.logits(row) for row in range(len(tokens[begin : begin + rows]))]
            return found

        singles = logits(1)
        assert [rows for rows in ROWS if logits(rows) != singles] == []


def test_the_cache_does_not_follow_from_whether_tokens_are_guessed(quoting: Path) -> None:
    found = []
    for lookup in (True, False):
        with Engine.load(quoting, threads=1, kv_type=None, lookup=lookup) as engine:
            found.append((engine.kv_type, engine.log_probs(QUOTED, 1).tolist()))
    assert found[0] == found[1]
    assert found[0][0] == ("f16" if llama.own_attention() else "bf16")
