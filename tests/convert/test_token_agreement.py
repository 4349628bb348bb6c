"""The long comparison of token ids: the embedded tokenizer agrees, and wrong scores are found."""

from collections import Counter
from pathlib import Path

import pytest

from medmind import embedded
from medmind.errors import MedmindError
from medmind_convert import fuzz_text, quants, scores
from medmind_convert.check import Agreement
from medmind_convert.convert import convert
from medmind_convert.source import find
from medmind_convert.token_agreement import compare
from medmind_convert.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def embedded_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results, _ = convert(find(embedded.BASE, out=tmp_path_factory.mktemp("embedded")), quants.parse(["f16"]))
    return results[0].file


def test_lines_hold_what_they_are_made_for_and_are_the_same_again():
    made = list(fuzz_text.lines(3000, pieces=["ab", "c"], controls=["[INST]"], seed=1))
    assert made == list(fuzz_text.lines(3000, pieces=["ab", "c"], controls=["[INST]"], seed=1))
    assert made != list(fuzz_text.lines(3000, pieces=["ab", "c"], controls=["[INST]"], seed=2))
    seen = Counter("".join(made))
    ranges = ((0x4E00, 0x9FFF), (0x5D0, 0x5EA), (0x620, 0x64A), (0x1F600, 0x1F64F), (0x300, 0x36F), (1, 8))
    assert all(sum(seen[chr(code)] for code in range(low, high + 1)) > 10 for low, high in ranges)
    assert seen["\ufffd"] > 100
    assert sum("[INST]" in line for line in made) > 150


@pytest.mark.parametrize("count", [3000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_the_embedded_tokenizer_agrees(count: int, embedded_gguf: Path):
    tokenizer = Tokenizer(embedded.FOLDER / embedded.BASE)
    found = compare(tokenizer, embedded_gguf, ["What is gout?", ""], count=count)
    assert (found.given, found.generated) == (2, count - 2)
    assert found.tokens > 10 * count


def test_a_difference_is_counted_and_its_shortest_line_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scores, "find", lambda path, ids, merges: dict.fromkeys(ids, -1000.0))
    monkeypatch.setattr("medmind_convert.check.Expected.compare", lambda *_: Agreement(0, 0, 0))
    results, _ = convert(find(embedded.BASE, out=tmp_path), quants.parse(["f16"]))
    with pytest.raises(MedmindError, match=r"\d+ of 200 lines tokenize otherwise"):
        compare(Tokenizer(embedded.FOLDER / embedded.BASE), results[0].file, count=200)
