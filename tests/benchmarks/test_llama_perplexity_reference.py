"""Raw perplexity and KL divergence against llama-perplexity on the same library, and its files read and written."""

import re
import sys
from pathlib import Path

import pytest
from bench_rows import SUBJECTS

from medmind_benchmarks import model_file, reference_rows, row_codec, score, texts

sys.path.insert(0, str(Path(__file__).parents[1]))
from llama_tools import run_tool

pytestmark = pytest.mark.reference
CHUNK = 64


@pytest.fixture(scope="module")
def raw(family: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A plain text, and its token ids for our cells."""
    folder = tmp_path_factory.mktemp("raw")
    plain = folder / "plain.txt"
    plain.write_text("\n".join(f"Rest helps with {subject}." for subject in SUBJECTS * 4) + "\n", encoding="utf-8")
    with texts.speaker(model_file.read(family / "family.f16.gguf")) as spoken:
        text, _ = texts.raw(spoken, texts.read_raw(plain), chunk=CHUNK, most=0, where="plain.txt")
    texts.write(text, folder / "ids.json")
    return plain, folder / "ids.json"


def ours(model: Path, ids: Path, *, beside: Path | None = None, rows: Path | None = None) -> score.Result:
    offset = row_codec.read_base(rows).offset if rows else 0
    request = score.Request("score", str(model), "f16", str(beside or ""), str(rows or ""), offset, str(ids), threads=1)
    return score.measure(request, lambda: None)


def theirs(output: str, name: str) -> tuple[float, float]:
    found = re.search(rf"{re.escape(name)}\s*[:=]\s*([\d.]+)(?: (?:\+/-|±)\s*([\d.]+))?", output)
    assert found, output
    return float(found[1]), float(found[2] or 0)


def perplexity_tool(model: Path, *arguments: str | Path) -> str:
    """What the tool says; again when its last lines are missing: its logging thread loses them on a busy machine."""
    last = "Same top p:" if "--kl-divergence" in arguments else "Final estimate: PPL"
    for _ in range(6):
        done = run_tool("llama-perplexity", "-m", model, "-c", str(CHUNK), "-t", "1", *arguments)
        if last in done.stdout + done.stderr:
            return done.stdout + done.stderr
    raise AssertionError(f"llama-perplexity never said {last!r}: {done.stderr}")


@pytest.mark.parametrize("quant", ["f16", "q8_0", "q2_k"])
def test_raw_perplexity_is_llama_perplexitys_to_four_decimals(family: Path, raw: tuple[Path, Path], quant: str) -> None:
    from medmind_benchmarks.statistics import perplexity_of_tokens

    plain, ids = raw
    model = family / f"family.{quant}.gguf"
    value, error = theirs(perplexity_tool(model, "-f", plain), "Final estimate: PPL")
    found = ours(model, ids)
    mine = perplexity_of_tokens(sum(found.nll), found.squares, sum(found.tokens))
    assert round(mine.value, 4) == pytest.approx(value, abs=1.01e-4)
    assert mine.error == pytest.approx(error, abs=2e-5)


def test_its_file_is_read_and_gives_its_divergence(family: Path, raw: tuple[Path, Path], tmp_path: Path) -> None:
    plain, ids = raw
    base = tmp_path / "tool.base"
    perplexity_tool(family / "family.f16.gguf", "-f", plain, "--kl-divergence-base", base)
    model = family / "family.q2_k.gguf"
    said = perplexity_tool(model, "--kl-divergence", "--kl-divergence-base", base)
    found = ours(model, ids, rows=base).fidelity
    assert found and found.method == "base-file"
    assert found.kl_mean.value == pytest.approx(theirs(said, "Mean    KLD")[0], abs=2e-5)
    assert found.kl_median.value == pytest.approx(theirs(said, "Median  KLD")[0], abs=2e-5)
    assert found.kl_p99.value == pytest.approx(theirs(said, "99.0%   KLD")[0], abs=2e-4)
    assert found.kl_max == pytest.approx(theirs(said, "Maximum KLD")[0], abs=2e-4)
    assert 100 * found.same_top.value == pytest.approx(theirs(said, "Same top p")[0], abs=2e-3)
    assert 100 * found.rms_delta_p.value == pytest.approx(theirs(said, "RMS Δp")[0], abs=2e-3)
    direct = ours(model, ids, beside=family / "family.f16.gguf").fidelity
    assert direct and direct.kl_mean.value == pytest.approx(found.kl_mean.value, rel=1e-3)


def test_the_tool_reads_our_file_and_finds_the_same(family: Path, raw: tuple[Path, Path], tmp_path: Path) -> None:
    plain, ids = raw
    model, whole = family / "family.q8_0.gguf", family / "family.f16.gguf"
    base, mine = tmp_path / "tool.base", tmp_path / "ours.base"
    perplexity_tool(whole, "-f", plain, "--kl-divergence-base", base)
    request = reference_rows.Request("log-probs", str(whole), str(ids), True, str(mine), 1)
    result = reference_rows.measure(request, lambda: None)
    assert mine.stat().st_size == base.stat().st_size == result.size
    by_tool, by_us = (perplexity_tool(model, "--kl-divergence", "--kl-divergence-base", file) for file in (base, mine))
    for name in ("Mean PPL(base)", "Mean    KLD", "99.0%   KLD", "Same top p", "RMS Δp"):
        assert theirs(by_us, name)[0] == pytest.approx(theirs(by_tool, name)[0], rel=1e-4, abs=2e-6), name
