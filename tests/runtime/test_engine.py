import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmind.errors import MedmindError
from medmind_runtime.engine.engine import Engine, Sampling

GREEDY = Sampling()
PROMPT = [1, 3, 273, 280, 15, 15, 291, 282, 276, 275, 4]
LONG = [1, 3, *(20 + i * 7 % 250 for i in range(300)), 4]


def answer(engine: Engine, prompt: list[int], count: int = 24, sampling: Sampling = GREEDY) -> list[int]:
    return list(engine.generate(prompt, sampling=sampling, max_tokens=count))


def test_greedy_generation_takes_the_likeliest_token_of_the_scored_distribution(engine: Engine) -> None:
    tokens = list(PROMPT)
    for token in answer(engine, PROMPT, 3):
        scores = [engine.log_probs([*tokens, other], len(tokens))[0] for other in range(len(engine.vocabulary))]
        assert np.exp(scores).sum() == pytest.approx(1, abs=1e-6)
        assert token == int(np.argmax(scores))
        tokens.append(token)


def test_log_probs_do_not_depend_on_start_or_batch(model: Path, engine: Engine) -> None:
    # other batch sizes take other kernels over a half-precision cache; a shift by one would differ by whole nats
    whole = engine.log_probs(LONG, 1)
    assert whole.dtype == np.float64
    assert whole.shape == (len(LONG) - 1,)
    for start in (2, 64, 65, 130, len(LONG) - 1):
        np.testing.assert_allclose(engine.log_probs(LONG, start), whole[start - 1 :], atol=0.1)
    with Engine.load(model, batch=7, threads=1) as small:
        np.testing.assert_allclose(small.log_probs(LONG, 1), whole, atol=0.1)
    assert engine.log_probs(LONG, len(LONG)).shape == (0,)


def test_scoring_leaves_no_trace_in_a_later_generation(engine: Engine) -> None:
    before = answer(engine, PROMPT)
    engine.log_probs([*PROMPT[:4], 99, 98, 97], 1)
    assert answer(engine, PROMPT) == before


def test_a_common_prefix_is_not_evaluated_again_and_the_answer_is_the_same(model: Path, engine: Engine) -> None:
    first = answer(engine, PROMPT)
    longer = [*PROMPT, *first, 5, 6, 7]
    second = answer(engine, longer)
    # the last generated token was yielded and never evaluated
    assert engine.timings.reused == len(PROMPT) + len(first) - 1
    with Engine.load(model, threads=1) as fresh:
        assert answer(fresh, longer) == second
        assert fresh.timings.reused == 0
    assert answer(engine, PROMPT) == first
    assert engine.timings.reused == len(PROMPT) - 1


def test_the_seed_decides_and_different_seeds_differ(engine: Engine) -> None:
    warm = [answer(engine, PROMPT, 24, Sampling(temperature=1.5, seed=seed)) for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]


def test_the_end_token_ends_the_answer_and_is_yielded_last(make_model: Callable[..., Path]) -> None:
    with Engine.load(make_model(ends=True), threads=1) as engine:
        answers = [answer(engine, PROMPT, 400, Sampling(temperature=3, top_k=0, top_p=1, min_p=0, seed=1))]
    for tokens in answers:
        assert engine_ends(tokens) == [len(tokens) - 1]


def engine_ends(tokens: list[int]) -> list[int]:
    return [place for place, token in enumerate(tokens) if token == 2]


def test_cancelling_stops_at_once_and_leaves_a_usable_cache(engine: Engine, model: Path) -> None:
    with Engine.load(model, threads=1) as fresh:
        expected = answer(fresh, LONG)
    for allowed in range(0, 60, 7):
        calls = 0

        def cancel(allowed: int = allowed) -> bool:
            nonlocal calls
            calls += 1
            return calls > allowed

        engine.log_probs([7, 8, 9], 1)
        got = list(engine.generate(LONG, sampling=GREEDY, max_tokens=24, cancel=cancel))
        assert len(got) < 24
        assert got == expected[: len(got)]
        assert answer(engine, LONG) == expected


def test_cancel_is_asked_while_the_prompt_is_evaluated(engine: Engine) -> None:
    calls = 0

    def cancel() -> bool:
        nonlocal calls
        calls += 1
        return calls > 5

    assert list(engine.generate(LONG, sampling=GREEDY, max_tokens=1, cancel=cancel)) == []
    assert calls == 6


def test_ctrl_c_during_evaluation_is_not_lost(engine: Engine) -> None:
    calls = 0

    def press() -> bool:
        nonlocal calls
        calls += 1
        if calls == 10:
            signal.raise_signal(signal.SIGINT)
        return False

    expected = answer(engine, LONG)
    engine.log_probs([7, 8, 9], 1)
    with pytest.raises(KeyboardInterrupt):
        list(engine.generate(LONG, sampling=GREEDY, max_tokens=24, cancel=press))
    assert calls < 20
    assert answer(engine, LONG) == expected


def test_an_exception_from_cancel_reaches_the_caller(engine: Engine) -> None:
    calls = 0

    def fail() -> bool:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise ZeroDivisionError
        return False

    with pytest.raises(ZeroDivisionError):
        list(engine.generate(LONG, sampling=GREEDY, max_tokens=2, cancel=fail))


def test_pieces_are_the_exact_bytes_of_the_text(engine: Engine) -> None:
    text = "the thing is on: naïve 😀 日本\n\ttabs"
    tokens = engine.tokenize(text, special=True)
    assert b"".join(map(engine.detokenize, tokens)) == text.encode()
    assert engine.detokenize(2) == b""
    assert engine.is_end(2)
    assert not engine.is_end(1)


@pytest.mark.parametrize("text", ["", "the patient " * 40, "  \n\n   ", "中文😀é" * 30, "x" * 200])
def test_a_text_has_no_fewer_tokens_than_are_told_without_tokenizing_it(engine: Engine, text: str) -> None:
    least = engine.least_tokens(text)
    assert least <= len(engine.tokenize(text, special=False))
    assert bool(least) == bool(text)


def test_tokenize_adds_no_bos_and_reads_special_text_only_when_asked(engine: Engine) -> None:
    assert engine.tokenize("[INST]", special=True) == [3]
    typed = engine.tokenize("[INST]", special=False)
    assert 3 not in typed
    assert b"".join(map(engine.detokenize, typed)) == b"[INST]"


def test_memory_is_told_apart(engine: Engine, model: Path) -> None:
    memory = engine.memory
    assert 0 < memory.weights < model.stat().st_size
    layers, kv_width, half_precision = 2, 32, 2
    assert memory.kv_cache == pytest.approx(2 * layers * engine.context * kv_width * half_precision, abs=0.006 * 2**20)
    assert memory.compute > 0


def test_metadata_is_text_of_any_length(make_model: Callable[..., Path]) -> None:
    long = "ä" * 5000
    with Engine.load(make_model(metadata={"medmind.system_prompt": long}), threads=1) as engine:
        assert engine.metadata["medmind.system_prompt"] == long
        assert engine.metadata["llama.context_length"] == "512"


def test_the_context_bounds_the_answer(make_model: Callable[..., Path]) -> None:
    with Engine.load(make_model(context=256), threads=1) as engine:
        assert engine.context == 256
        assert len(answer(engine, PROMPT, 10_000)) == 256 - len(PROMPT)


def test_a_prompt_larger_than_the_context_is_refused_with_the_counts(engine: Engine) -> None:
    with pytest.raises(MedmindError, match="513 tokens and the context holds 512"):
        answer(engine, [5] * 513)
    with pytest.raises(MedmindError, match="context"):
        engine.log_probs([5] * 513, 1)
    assert engine.log_probs([5] * 512, 1).shape == (511,)


@pytest.mark.parametrize("tokens", [[], [-1], [100_000]])
def test_impossible_tokens_are_refused(engine: Engine, tokens: list[int]) -> None:
    with pytest.raises(MedmindError):
        answer(engine, tokens)


@pytest.mark.parametrize("options", [{"context": 513}, {"context": 0}, {"threads": 0}, {"batch": 0}])
def test_impossible_settings_are_refused(model: Path, options: dict[str, int]) -> None:
    with pytest.raises(MedmindError):
        Engine.load(model, **options)


def test_a_setting_that_there_is_not_is_refused(model: Path) -> None:
    with pytest.raises(TypeError, match="there is no thread among"):
        Engine.load(model, thread=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_p": 0}, {"min_p": 2}, {"seed": -1}, {"top_k": -1}, {"repeat_penalty": 0}]
)
def test_impossible_sampling_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(MedmindError, match="must be"):
        Sampling(**options)  # type: ignore[arg-type]


def test_llama_cpp_says_nothing_on_the_terminal(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Engine.load(model) as engine:
        answer(engine, PROMPT, 2)
    assert capfd.readouterr() == ("", "")


def test_a_closed_engine_says_so(model: Path) -> None:
    engine = Engine.load(model)
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        answer(engine, PROMPT)
