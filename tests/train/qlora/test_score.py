"""`medmind-train score`: what the stages make of the same tokens, and the file that they are compared through."""

import dataclasses
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from medmind.errors import MedmindError
from medmind_train import cli
from medmind_train.examples import Example
from medmind_train.score import document, measure, runs, stages, tokens
from medmind_train.score.config import ScoreConfig
from medmind_train.score.document import ScoreDocument
from medmind_train.score.tokens import Tokens


@pytest.fixture(scope="module")
def run(data: Path, small_base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, taken far enough that adapter and base differ."""
    from medmind_train import qlora

    settings = {
        "base": str(small_base.path),
        "data": str(data),
        "out": str(tmp_path_factory.mktemp("runs")),
        "name": "tiny",
        "heldout_share": 0.4,
        "context": 96,
        "max_steps": 8,
        "batch": 2,
        "accumulate": 2,
        "lr": 1e-2,
        "rank": 4,
        "device": "cpu",
        "dtype": "float32",
        "packing": False,
        "answer_rows": 0,
        "sample_answers": 0,
    }
    return qlora.start([settings], force=False, assume_yes=False)[0]


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScoreDocument]:
    file = tmp_path_factory.mktemp("scores") / "trained.npy"
    return file, measure.run(str(run), ScoreConfig(write=str(file), device="cpu"))


def nll(found: ScoreDocument) -> float:
    return sum(row.nll for row in found.rows) / found.tokens


def kl(found: ScoreDocument) -> float:
    return sum(row.kl or 0.0 for row in found.rows) / found.tokens


def test_the_adapters_perplexity_is_the_one_that_training_ended_with(
    run: Path, written: tuple[Path, ScoreDocument]
) -> None:
    after = json.loads((run / "medmind.json").read_text())["results"]["perplexity"]["after"]
    assert written[1].tokens == after["tokens"] and len(written[1].rows) == after["rows"]
    assert nll(written[1]) == pytest.approx(after["nll"], rel=1e-5)


def test_the_file_holds_whole_distributions_of_its_tokens(written: tuple[Path, ScoreDocument]) -> None:
    file, found = written
    rows, scored = np.load(file, mmap_mode="r"), tokens.read(tokens.beside(file))
    assert rows.dtype == np.float32 and rows.shape == (found.tokens, found.vocabulary)
    assert np.exp(rows.astype(np.float64)).sum(axis=1) == pytest.approx(np.ones(found.tokens), abs=1e-5)
    targets = [token for one in scored.examples for token in one.ids[one.answer :]]
    assert -float(rows[np.arange(found.tokens), targets].sum()) / found.tokens == pytest.approx(nll(found), rel=1e-5)
    assert scored.digest == found.token_digest


def test_a_stage_against_itself_does_not_diverge(run: Path, written: tuple[Path, ScoreDocument]) -> None:
    found = measure.run(str(run), ScoreConfig(against=str(written[0]), device="cpu"))
    assert abs(kl(found)) < 1e-6 and found.divergence and found.divergence.most < 1e-5
    assert sum(row.same_top or 0 for row in found.rows) == found.tokens


def test_the_merged_weights_are_nearer_to_the_trained_model_than_the_base(
    run: Path, written: tuple[Path, ScoreDocument]
) -> None:
    base, merged, onto_nf4 = (
        measure.run(str(run), ScoreConfig(stage=stage, against=str(written[0]), device="cpu"))
        for stage in ("base", "merged", "merged-nf4")
    )
    assert 0 < kl(onto_nf4) < kl(merged) / 10 and onto_nf4.weights == "bfloat16"
    assert base.token_digest == merged.token_digest == written[1].token_digest
    assert base.weights == merged.weights == "bfloat16" and merged.dtype == "float32"
    assert 0 < 2 * kl(merged) < kl(base)
    assert abs(nll(merged) - nll(written[1])) < abs(nll(base) - nll(written[1]))
    before = json.loads((run / "medmind.json").read_text())["results"]["perplexity"]["before"]
    assert nll(base) == pytest.approx(before["nll"], rel=0.05), "NF4 and 16 bits of one base"


def test_merged_weights_are_rounded_to_the_bases_type(run: Path) -> None:
    import torch

    found = runs.find(str(run), None)
    model, _ = stages.load("merged", found.base, found.adapter, "cpu", "float32")
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.float32 and torch.equal(weight, weight.bfloat16().float()), name


def test_as_many_rows_as_both_limits_allow_are_chosen_by_their_ids() -> None:
    examples = [Example(f"r{number}", (1,) * (3 + number % 5), 2, True) for number in range(40)]
    ids = [one.row for one in examples]

    def chosen(rows: int, most: int) -> set[str]:
        return {one.row for one in tokens.limited(examples, ids, most_rows=rows, most_tokens=most)}

    few, more = chosen(0, 20), chosen(0, 60)
    assert few < more and len(chosen(7, 1000)) == 7
    count = sum(len(one.ids) - one.answer for one in examples if one.row in more)
    assert 55 <= count <= 60
    with pytest.raises(MedmindError, match="larger --tokens"):
        tokens.limited([Example("r", (1,) * 9, 2, True)], ["r"], most_rows=0, most_tokens=6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stage": "merged", "write": "a.npy"}, "--stage merged"),
        ({"write": "a.npy", "against": "b.npy"}, "exclude each other"),
        ({"write": "a.bin"}, r"does not end in \.npy"),
        ({"against": "a.npy", "rows": "3"}, "brings its own rows"),
        ({"heldout": "nothing.jsonl"}, "nothing.jsonl does not exist"),
        ({"against": "nothing.npy"}, "nothing.json does not exist"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    run: Path,
    settings: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["medmind-train", "score", str(run), *flags, "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and out == ""

    assert re.search(words, err) and err.count("error: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_other_tokens_or_another_adapter_is_refused(
    run: Path, written: tuple[Path, ScoreDocument], tmp_path: Path
) -> None:
    scored = tokens.read(tokens.beside(written[0]))
    file = tmp_path / "trained.npy"
    np.save(file, np.zeros((3, scored.vocabulary), np.float32))
    tokens.write(scored, tokens.beside(file))
    with pytest.raises(MedmindError, match=f"3×{scored.vocabulary}"):
        measure.run(str(run), ScoreConfig(stage="base", against=str(file), device="cpu"))
    tokens.write(dataclasses.replace(scored, adapter="sha256:00"), tokens.beside(file))
    with pytest.raises(MedmindError, match="another adapter"):
        measure.run(str(run), ScoreConfig(stage="base", against=str(file), device="cpu"))
    tokens.beside(file).write_text("{}")
    with pytest.raises(MedmindError, match="has the format None"):
        tokens.read(tokens.beside(file))


def test_a_full_disk_is_refused_before_a_model_is_loaded(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from medmind import artifacts

    monkeypatch.setattr(artifacts, "free_bytes", lambda where: 1000)
    monkeypatch.setattr(stages, "load", lambda *given: pytest.fail("loaded"))
    with pytest.raises(MedmindError, match="score fewer --tokens"):
        measure.run(str(run), ScoreConfig(write=str(tmp_path / "a.npy"), device="cpu"))


def test_the_document_is_json_and_the_command_prints_nothing_else(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*flags: str) -> str:
        monkeypatch.setattr(sys, "argv", ["medmind-train", "score", str(run), "--rows", "2", "--device", "cpu", *flags])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr().out

    found = json.loads(say("--json"))
    assert found["schema"] == document.SCHEMA and len(found["rows"]) == 2 and found["divergence"] is None
    rows = found["rows"]
    value = math.exp(sum(row["nll"] for row in rows) / sum(row["tokens"] for row in rows))
    assert f"{value:.2f} ±" in say()


def test_tokens_survive_their_file(tmp_path: Path) -> None:
    scored = Tokens("sha256:1", 9, (Example("a", (1, 2, 3), 1, True), Example("b", (4, 5), 1, False)), 2)
    tokens.write(scored, tmp_path / "t.json")
    assert tokens.read(tmp_path / "t.json") == scored and scored.count == 3
