"""Fidelity and its 16-bit files: identity, both ways of comparing, chunks, and what the numbers are of."""

from pathlib import Path

import numpy as np
import pytest
from bench_rows import heldout_rows

from medmind.errors import MedmindError
from medmind_benchmarks import model_file, reference_rows, row_codec, score, statistics, texts
from medmind_benchmarks.divergence import Comparison, log_softmax
from medmind_benchmarks.texts import Text


@pytest.fixture(scope="module")
def answers(family: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Text]:
    rows = heldout_rows(4)
    with texts.speaker(model_file.read(family / "family.f16.gguf")) as spoken:
        text = texts.answers(spoken, rows, range(4), context=256, system_prompt="")
    path = tmp_path_factory.mktemp("text") / "answers.json"
    texts.write(text, path)
    assert texts.read(path) == text
    return path, text


def scored(family: Path, quant: str, text: Path, *, beside: str = "", rows: Path | None = None) -> score.Result:
    reference = str(family / f"family.{beside}.gguf") if beside else ""
    model = str(family / f"family.{quant}.gguf")
    request = score.Request("score", model, "f16", reference, str(rows or ""), 0, str(text), 1)
    return score.measure(request, lambda: None)


@pytest.mark.parametrize("quant", ["f16", "q2_k"])
def test_a_model_beside_itself_does_not_diverge(family: Path, answers: tuple[Path, Text], quant: str) -> None:
    found = scored(family, quant, answers[0], beside=quant)
    assert found.fidelity
    assert abs(found.fidelity.kl_max) < 1e-6 and abs(found.fidelity.kl_mean.value) < 1e-6
    assert found.fidelity.same_top.value == 1 and found.fidelity.rms_delta_p.value == 0
    assert found.nll == found.reference_nll


def test_divergence_through_a_file_is_that_of_side_by_side(
    family: Path, answers: tuple[Path, Text], tmp_path: Path
) -> None:
    path, text = answers
    rows = tmp_path / "f16.rows"
    request = reference_rows.Request("log-probs", str(family / "family.f16.gguf"), str(path), False, str(rows), 1)
    written = reference_rows.measure(request, lambda: None)
    assert rows.stat().st_size == written.size <= reference_rows.size(text, 301)
    direct, stored = scored(family, "q2_k", path, beside="f16"), scored(family, "q2_k", path, rows=rows)
    assert direct.fidelity and stored.fidelity and stored.fidelity.method == "base-file"
    assert stored.fidelity.kl_mean.value == pytest.approx(direct.fidelity.kl_mean.value, rel=1e-3)
    assert stored.reference_nll == pytest.approx(direct.reference_nll, rel=1e-3)
    assert sum(direct.kl) / sum(direct.tokens) == pytest.approx(direct.fidelity.kl_mean.value)
    assert direct.nll == stored.nll
    same = scored(family, "f16", path, rows=rows)
    assert same.fidelity and abs(same.fidelity.kl_mean.value) < 1e-4


def test_a_file_of_rows_that_ends_early_is_refused(family: Path, answers: tuple[Path, Text], tmp_path: Path) -> None:
    rows = tmp_path / "cut.rows"
    rows.write_bytes(b"\0" * 1000)
    with pytest.raises(MedmindError, match="cut off"):
        scored(family, "q2_k", answers[0], rows=rows)


def test_the_numbers_of_known_distributions() -> None:
    reference = np.log(np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]]))
    level = np.log(np.array([[0.25, 0.5, 0.25], [0.9, 0.05, 0.05]]))
    comparison = Comparison("direct")
    comparison.add(0, reference[:1], level[:1], np.array([1]))
    comparison.add(3, reference[1:], level[1:], np.array([0]))
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    found = comparison.fidelity()
    assert found.kl_max == pytest.approx(expected)
    assert found.kl_mean.value == pytest.approx(expected / 2)
    assert found.kl_mean.error == pytest.approx(expected / 2), "two groups, one of which says 0"
    assert found.kl_median.value == pytest.approx(expected / 2)
    assert found.same_top.value == 0.5
    assert found.mean_delta_p.value == pytest.approx(0.125)
    assert found.rms_delta_p.value == pytest.approx(np.sqrt(0.25**2 / 2))
    assert sum(found.kl_histogram.counts) == 1 and found.kl_histogram.below == 1
    place = found.kl_histogram.counts.index(1)
    lower = 10 ** (found.kl_histogram.low + place / found.kl_histogram.per_decade)
    assert lower <= expected < lower * 10 ** (1 / found.kl_histogram.per_decade)
    assert comparison.sums(5) == pytest.approx((expected, 0, 0, 0, 0))


def test_rows_survive_sixteen_bits() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (5, 301)).astype(np.float32)
    encoded = row_codec.encode(logits)
    assert encoded.shape == (5, row_codec.row_words(301)) == (5, 306)
    assert np.abs(row_codec.decode(encoded, 301) - log_softmax(logits)).max() < 2e-4
    flat = row_codec.decode(row_codec.encode(np.zeros((1, 7), dtype=np.float32)), 7)
    assert flat == pytest.approx(np.full((1, 7), np.log(1 / 7)))


@pytest.mark.parametrize("length", [4, 15, 60, -1])
def test_a_base_file_is_read_whole_or_refused(tmp_path: Path, length: int) -> None:
    tokens = np.arange(16, dtype=np.int32).reshape(2, 8)
    path = tmp_path / "m.base"
    with path.open("wb") as file:
        row_codec.write_head(file, 8, 20, tokens)
        for _ in range(2):
            file.write(row_codec.encode(np.zeros((3, 20), dtype=np.float32)).tobytes())
    base = row_codec.read_base(path)
    assert (base.tokens == tokens).all() and [len(rows) for rows in base.rows()] == [3, 3]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(MedmindError, match=r"cut off|no file of log-probabilities"):
        row_codec.read_base(path)


def test_raw_text_is_cut_as_llama_perplexity_cuts_it(family: Path) -> None:
    with texts.speaker(model_file.read(family / "family.f16.gguf")) as spoken:
        content = "Rest and water help with a cough. " * 10
        whole = [spoken.bos, *spoken.tokenize(content)]
        text, length = texts.raw(spoken, content + "\n", chunk=32, most=0, where="t")
        assert length == len(whole) and len(text.groups) == len(whole) // 32 > 3
        assert set(text.tokens) == {32 - 1 - 16}
        ids = text.groups[1][0].tokens
        assert ids[0] == spoken.bos and list(ids[1:]) == whole[33:64]
        assert len(texts.raw(spoken, content, chunk=32, most=2, where="t")[0].groups) == 2


def test_the_error_of_raw_perplexity_takes_tokens_as_independent() -> None:
    nll = np.array([1.0, 2.0, 4.0])
    found = statistics.perplexity_of_tokens(float(nll.sum()), float((nll**2).sum()), 3)
    assert found.value == pytest.approx(np.exp(nll.mean()))
    assert found.error == pytest.approx(np.exp(nll.mean()) * nll.std(ddof=1) / np.sqrt(3))
