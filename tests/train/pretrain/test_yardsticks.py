"""`medmind-train yardsticks`: the trigram model is a probability and the textbook's, the compressors count right."""

import gzip
import json
import lzma
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmind_train.cli import main
from medmind_train.pretrain import tokenfile
from medmind_train.pretrain.text import documents, records
from medmind_train.pretrain.tokenizer import train_tokenizer
from medmind_train.pretrain.trigram import Trigrams

BOS, EOS = 1, 2
WORDS = [
    "heart",
    "lung",
    "fever",
    "pain",
    "rest",
    "water",
    "doctor",
    "child",
    "adult",
    "may",
    "help",
    "often",
    "with",
    "after",
    "before",
    "when",
]


def stream(*texts: list[int]) -> np.ndarray:
    return np.array([i for text in texts for i in (BOS, *text, EOS)], dtype=np.uint16)


@pytest.fixture(scope="module")
def learnt() -> Trigrams:
    """A model of 400 random documents over 40 ids, some of which never occur."""
    dice = random.Random(5)
    return Trigrams(stream(*([dice.randint(3, 30) for _ in range(dice.randint(0, 9))] for _ in range(400))), BOS, 40)


@pytest.mark.parametrize("history", [(BOS, BOS), (BOS, 5), (7, 8), (8, EOS), (39, 39), (39, 5), (5, 39)])
def test_probabilities_after_any_history_sum_to_one(learnt: Trigrams, history: tuple[int, int]) -> None:
    older, old = (np.full(40, i) for i in history)
    found = learnt.probabilities(older, old, np.arange(40))
    assert found.min() > 0
    assert found.sum() == pytest.approx(1, abs=1e-12)


def test_a_toy_gives_the_numbers_of_a_hand_computation() -> None:
    """Documents `a b`, `a b`, `a c`, with a, b, c = 3, 4, 5 and 6 ids in all; P(b | <s> a) and P(c | b a).

    Trigrams: s s a 3; s a b 2; s a c 1; a b e 2; a c e 1. n1 = 2, n2 = 2, so D3 = 2 / (2 + 4) = 1/3.
    Bigrams by what stands before them: s a, a b, a c, b e, c e: 1 each. n1 = 5, n2 = 0: D2 = 1.
    Unigrams by what stands before them: a 1, b 1, c 1, e 2, of 5. n1 = 3, n2 = 1: D1 = 3 / 5.
    """
    model = Trigrams(stream([3, 4], [3, 4], [3, 5]), BOS, 6)
    assert [level.discount for level in model.levels] == pytest.approx([3 / 5, 1, 1 / 3])
    b = (1 - 3 / 5) / 5 + 3 / 5 * 4 / 5 / 6  # the same for c
    after_a = (1 - 1) / 2 + 1 * 2 / 2 * b
    expected = (2 - 1 / 3) / 3 + 1 / 3 * 2 / 3 * after_a
    asked = model.probabilities(np.array([BOS, 4]), np.array([3, 3]), np.array([4, 5]))
    assert asked == pytest.approx([expected, after_a], abs=1e-12)


def test_the_bits_of_a_stream_are_those_of_its_documents_alone(learnt: Trigrams) -> None:
    first, second = stream([3, 4, 5]), stream([], [6, 39])
    together = learnt.bits(np.concatenate([first, second]))
    assert together == pytest.approx(np.concatenate([learnt.bits(first), learnt.bits(second)]))
    assert together[0] == 0
    with pytest.raises(ValueError, match="does not begin"):
        learnt.bits(first[1:])


def test_each_count_once_is_no_zero_probability() -> None:
    model = Trigrams(stream(*([3, 4] for _ in range(9))), BOS, 6)
    assert model.probabilities(np.array([4]), np.array([4]), np.array([5]))[0] > 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of two sources, and the tokenizer beside them."""
    folder = tmp_path_factory.mktemp("corpus")
    dice = random.Random(3)
    rows = [
        {"text": " ".join(dice.choices(WORDS, k=80)) + f" {n} ä.", "source": ("papers", "talk")[n % 2]}
        for n in range(120)
    ]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train_tokenizer((row["text"] for row in rows), 330, folder)
    return folder


@pytest.fixture
def yardsticks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["medmind-train", "yardsticks", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert (stop.value.code or 0) == code, captured.err
        return captured.out, captured.err

    return run


@pytest.fixture
def measured(corpus: Path, yardsticks: Callable[..., tuple[str, str]]) -> dict:
    out, _ = yardsticks(corpus / "text.jsonl", "--tokenizer", corpus, "--validation-share", "0.2", "--json")
    return json.loads(out)


def test_the_documents_are_those_that_pretrain_holds_out(measured: dict, corpus: Path, tmp_path: Path) -> None:
    files = [corpus / "text.jsonl"]
    built = tokenfile.build(files, corpus / "tokenizer.model", tmp_path, 0.2, None)
    assert measured["heldout"] == {
        "documents": built.validation_documents,
        "tokens": built.validation_tokens,
        "bytes": built.validation_bytes,
    }
    assert 0 < built.validation_documents < built.documents == measured["documents"] == 120
    model = Trigrams(built.part("train"), BOS, 330)
    bits = float(model.bits(built.part("validation")).sum())
    assert measured["bits_per_byte"]["trigram"] == pytest.approx(bits / built.validation_bytes)


def test_the_compressors_are_those_of_the_command_line(measured: dict, corpus: Path) -> None:
    files = [corpus / "text.jsonl"]
    cut = tokenfile.border(files, 0.2)
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    for text in documents(files):
        sides[tokenfile.is_held_out(text, cut)].append(text.encode())
    training, heldout = (b"\n".join(side) for side in sides)
    size = sum(map(len, sides[1]))
    found = measured["bits_per_byte"]
    assert found["gzip"] == pytest.approx(8 * len(gzip.compress(heldout)) / size)
    assert found["xz"] == pytest.approx(8 * len(lzma.compress(heldout, preset=9)) / size)
    grown = len(lzma.compress(training + b"\n" + heldout, preset=9)) - len(lzma.compress(training, preset=9))
    assert found["xz_after_training"] == pytest.approx(8 * grown / size)
    assert found["xz_after_training"] < found["xz"]


def test_sources_add_up_to_the_whole(measured: dict, corpus: Path) -> None:
    sources = measured["sources"]
    assert [source["source"] for source in sources] == ["papers", "talk"]
    assert {source for _, source in records([corpus / "text.jsonl"])} == {"papers", "talk"}
    assert sum(source["documents"] for source in sources) == measured["heldout"]["documents"]
    bits = sum(source["trigram"] * source["bytes"] for source in sources)
    assert bits / measured["heldout"]["bytes"] == pytest.approx(measured["bits_per_byte"]["trigram"])


def test_trigrams_learn_what_a_uniform_guess_does_not(measured: dict) -> None:
    per_token = measured["bits_per_byte"]["trigram"] * measured["heldout"]["bytes"] / measured["heldout"]["tokens"]
    assert per_token < math.log2(len(WORDS)) + 1 < math.log2(330)


def test_people_get_each_figure_by_its_name(corpus: Path, yardsticks: Callable[..., tuple[str, str]]) -> None:
    plain = corpus / "plain.txt"
    plain.write_text("\n\n".join(documents([corpus / "text.jsonl"])), encoding="utf-8")
    out, _ = yardsticks(plain, "--tokenizer", corpus / "tokenizer.model", "--validation-share", "0.3")
    for words in ("Kneser-Ney", "xz -9, the held-out text alone", "gzip -9", "in its window"):
        assert words in out
    assert "source" not in out  # plain text names none


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("text.jsonl", "--tokenizer", "none"), "none does not exist"),
        (("text.jsonl", "--tokenizer", "text.jsonl"), "no SentencePiece model"),
        (("none.jsonl", "--tokenizer", "."), "none.jsonl does not exist"),
        (("one.jsonl", "--tokenizer", "."), "one document"),
        (("text.jsonl", "--tokenizer", ".", "--validation-share", "1"), "--validation-share cannot be 1"),
    ],
)
def test_bad_input_is_one_line(
    corpus: Path,
    yardsticks: Callable[..., tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(corpus)
    (corpus / "one.jsonl").write_text('{"text": "alone"}\n', encoding="utf-8")
    out, err = yardsticks(*arguments, code=1)
    assert out == ""
    (line,) = err.strip().splitlines()
    assert words in line


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    line = json.dumps({"text": "one\u2028two"}, ensure_ascii=False)
    for name, text in (("rows.jsonl", line), ("rows.txt", "one\u2028two")):
        (tmp_path / name).write_text(f"\ufeff{text}\n", encoding="utf-8")
        assert list(documents([tmp_path / name])) == ["one\u2028two"]
