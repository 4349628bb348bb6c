"""What `gguf` is told beside names: a size is kept, a matrix used, a merge made onto NF4, and cards lie beside."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from tiny_bases import ROWS, WORDS
from typer.testing import CliRunner

from medmind.errors import MedmindError
from medmind_convert import ggml, graph, run_imatrix
from medmind_convert.activations import ADAPTER_NOTE, BASE_NOTE
from medmind_convert.cli import app
from medmind_convert.conversion import Conversion
from medmind_convert.imatrix import Entry, Imatrix, read_imatrix, write_imatrix
from medmind_convert.nf4 import Nf4Tensor
from medmind_convert.source import find

WIDE = {"hidden": 256, "ffn": 512, "heads": 4, "heads_kv": 2, "layers": 1}


def convert(*arguments: object) -> dict[str, Any]:
    """The command's JSON document."""
    done = CliRunner().invoke(app, ["gguf", *map(str, arguments), "--json", "--threads", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def refusal(*arguments: object) -> str:
    with pytest.raises(MedmindError) as raised:
        CliRunner().invoke(app, ["gguf", *map(str, arguments), "--threads", "1"], catch_exceptions=False)
    return str(raised.value)


def values(file: Path) -> dict[str, np.ndarray]:
    """Tensors as the numbers they stand for."""
    found = {}
    for tensor in GGUFReader(file).tensors:
        kind = ggml.types()[tensor.tensor_type.name]
        columns = int(tensor.shape[0])
        if kind.quantized:
            found[tensor.name] = graph.dequantize(np.array(tensor.data).view(np.uint8).reshape(-1), kind, columns)
        else:
            found[tensor.name] = np.array(tensor.data).astype(np.float32).reshape(-1, columns)
    return found


def skewed(run: Path) -> Path:
    """An importance matrix in which every fourth column is all that matters."""
    conversion = Conversion(find(str(run)))
    entries = {}
    for placement in conversion.architecture.placements:
        if placement.is_matrix and placement.target != "token_embd.weight":
            sums = np.full(placement.shape[1], 1e-3, np.float32)
            sums[::4] = 100
            entries[placement.target] = Entry(sums, np.ones(1, np.float32))
    write_imatrix(run.parent / "skewed.gguf", Imatrix(entries, chunks=1, chunk_size=512))
    return run.parent / "skewed.gguf"


def test_a_file_of_a_size_ends_at_it_or_below_and_better_sizes_hurt_less(make_run: Callable[..., Path]):
    run = make_run(**WIDE)
    exact = values(Path(convert("f32", run, "--no-cards")["files"][0]["file"]))
    errors = []
    for budget in (600_000, 750_000):
        document = convert("--fit", f"{budget // 1000}k", run, "--no-cards")
        (file,) = document["files"]
        assert file["quant"] == f"fit-{budget // 1000}k"
        size = Path(file["file"]).stat().st_size
        assert size == file["bytes"] <= budget
        assert document["fit"] == {"budget": budget, "left": budget - size}
        assert size > 0.97 * budget, "a whole tensor's next type would have fitted"
        found = values(Path(file["file"]))
        errors.append(sum(float(((found[name] - exact[name]) ** 2).sum()) for name in exact))
    assert errors[0] > errors[1] > 0
    kinds = {tensor.tensor_type.name for tensor in GGUFReader(Path(file["file"])).tensors}
    assert len(kinds - {"F32"}) > 1


def test_bits_per_weight_and_a_second_time_the_same_bytes(make_run: Callable[..., Path]):
    run = make_run(**WIDE)
    (first,) = convert("--bits-per-weight", "5.5", run, "--no-cards")["files"]
    assert 5.2 < first["bits_per_weight"] <= 5.5
    before = Path(first["file"]).read_bytes()
    convert("--bits-per-weight", "5.5", run, "--no-cards", "--force")
    assert Path(first["file"]).read_bytes() == before


def test_a_split_file_of_a_size_keeps_it_over_all_its_shards(make_run: Callable[..., Path]):
    run = make_run(**WIDE)
    convert("--fit", "600k", run, "--split-max-size", "150k", "--no-cards")
    shards = list(run.glob("trial.fit-600k-*-of-*.gguf"))
    assert len(shards) > 2
    assert 0.95 * 600_000 < sum(file.stat().st_size for file in shards) <= 600_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fit", "60k"), "for the weights are too few: the smallest types take"),
        (("--fit", "70k"), "for the weights are too few: the smallest types take"),  # after what lies beside them
        (("--fit", "4GiB", "--bits-per-weight", "4"), "leave one out"),
        (("--fit", "much"), "'much' is no size"),
        (("q4_k_m", "--imatrix", "nowhere.gguf"), "nowhere.gguf is no file"),
        (("q4_k_m", "--imatrix", "nowhere.gguf", "--no-imatrix"), "are opposites"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    arguments: tuple[str, ...], said: str, make_run: Callable[..., Path]
):
    run = make_run()
    before = sorted(run.rglob("*"))
    assert said in refusal(*arguments, run)
    assert sorted(run.rglob("*")) == before


def test_an_importance_matrix_moves_the_error_to_where_it_matters_less(make_run: Callable[..., Path]):
    run = make_run(**WIDE)
    exact = values(Path(convert("f32", run, "--no-cards")["files"][0]["file"]))
    plain = values(Path(convert("q3_k_m", run, "--no-imatrix", "--name", "plain", "--no-cards")["files"][0]["file"]))
    document = convert("q3_k_m", run, "--imatrix", skewed(run), "--no-cards")
    assert document["imatrix"] == str(run.parent / "skewed.gguf")
    found = values(Path(document["files"][0]["file"]))
    name = "blk.0.ffn_up.weight"

    def error(of: dict[str, np.ndarray]) -> float:
        return float(((of[name] - exact[name])[:, ::4] ** 2).sum())

    assert error(found) < 0.7 * error(plain)


def planned(run: Path) -> dict[str, int]:
    done = CliRunner().invoke(app, ["plan", "q3_k_m", "iq3_xxs", str(run), "--json"], catch_exceptions=False)
    return {each["quant"]: each["bytes"] for each in json.loads(done.stdout)["types"]}


def test_a_matrix_of_another_model_is_noticed(make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    run = make_run(**WIDE)
    plain = read_imatrix(skewed(run))
    beside = run / "trial.imatrix.gguf"
    digests = json.loads((run / "medmind.json").read_text())
    own = {BASE_NOTE: digests["base"]["digest"], ADAPTER_NOTE: digests["adapter"]["digest"]}
    conversion = Conversion(find(str(run)))
    for notes, said in (
        (own, ""),
        ({}, "it does not say over which model"),
        (own | {ADAPTER_NOTE: "sha256:1"}, "was collected over another adapter"),
        ({BASE_NOTE: own[BASE_NOTE]}, "was collected over another adapter"),
        (own | {BASE_NOTE: "sha256:1"}, "was collected over another base"),
    ):
        write_imatrix(beside, replace(plain, notes=notes))
        stale = "another" in said
        with pytest.raises(MedmindError, match=said) if stale else nullcontext():
            run_imatrix.for_conversion(conversion, None, threads=1)
        assert said in capsys.readouterr().err or stale
        assert run_imatrix.for_conversion(conversion, beside, threads=1) is not None  # named, it is taken
        assert (said.removeprefix("it ") in capsys.readouterr().err.replace("\n", " ")) or not said


def test_below_q4_k_the_runs_validation_text_is_used_by_itself(make_run: Callable[..., Path]):
    run = make_run(**WIDE)
    rows = [
        {**ROWS[0], "messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{WORDS}{n}"}]}
        for n in range(12)
    ]
    (run / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert convert("q4_k_m", run, "--no-cards")["imatrix"] is None
    assert convert("q3_k_m", run, "--no-imatrix", "--name", "plain", "--no-cards")["imatrix"] is None
    foretold = planned(run)
    document = convert("q3_k_m", "iq3_xxs", run, "--no-cards")
    assert document["imatrix"] == str(run / "trial.imatrix.gguf")
    assert foretold == {file["quant"]: file["bytes"] for file in document["files"]}  # the matrix was to be made yet
    assert foretold == planned(run)
    said = GGUFReader(run / "trial.q3_k_m.gguf").fields
    for key, value in (
        ("file", str(run / "trial.imatrix.gguf")[:127]),
        ("dataset", "validation.jsonl"),
        ("entries_count", 8),
        ("chunks_count", read_imatrix(run / "trial.imatrix.gguf").chunks),
    ):
        assert said[f"quantize.imatrix.{key}"].contents() == value
    assert [file["quant"] for file in document["files"]] == ["q3_k_m", "iq3_xxs"]
    assert values(run / "trial.q3_k_m.gguf")["blk.0.ffn_up.weight"].tolist() != (
        values(run / "plain.q3_k_m.gguf")["blk.0.ffn_up.weight"].tolist()
    )
    assert list(run.glob(".*")) == []  # the q8_0 that the text was run over is gone
    again = CliRunner().invoke(app, ["imatrix", str(run), "--json", "--threads", "1", "--force"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["file"] == str(run / "trial.imatrix.gguf")


def test_too_little_text_is_said_and_does_without(make_run: Callable[..., Path]):
    run = make_run()
    (run / "validation.jsonl").write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8")
    (run / "heldout.jsonl").write_text(json.dumps(ROWS[1]) + "\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["gguf", "q3_k_m", str(run), "--threads", "1", "--no-cards"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "goes on without an importance matrix" in done.stderr
    assert list(run.glob(".*")) == []


@pytest.mark.parametrize("trained", ["bfloat16", "float32"])
def test_a_merge_onto_nf4_is_what_the_adapter_was_trained_beside(trained: str, make_run: Callable[..., Path]):
    run = make_run()
    manifest = json.loads((run / "medmind.json").read_text())
    (run / "medmind.json").write_text(json.dumps({**manifest, "config": {"dtype": trained}}))
    document = convert("f32", run, "--no-cards")
    assert document["merged_onto"] == "nf4"
    file = Path(document["files"][0]["file"])
    found = values(file)
    conversion = Conversion(find(str(run)))
    for placement in conversion.architecture.placements:
        tensor = conversion.tensors[placement.source]
        expected = tensor.rows(slice(None))
        if placement.source.endswith("_proj.weight"):
            compute = {"bfloat16": "BF16", "float32": "F32"}[trained]
            expected = Nf4Tensor(tensor, compute).rows(slice(None))  # type: ignore[arg-type]
            delta = conversion.adapter.deltas[placement.source]  # type: ignore[union-attr]
            a, b, _ = delta.factors()
            expected = (expected + delta.scale * (b @ a))[placement.order()]
        tolerance = 0.01 if trained == "bfloat16" else 1e-6  # the merged weight is rounded to the compute type once
        assert found[placement.target] == pytest.approx(expected.reshape(found[placement.target].shape), abs=tolerance)
    fields = GGUFReader(file).fields
    assert fields["medmind.adapter.merged_onto"].contents() == "nf4"
    named = convert("f32", run, "--name", "named", "--merge-onto", "nf4", "--no-cards")["files"][0]["file"]
    assert all((values(Path(named))[name] == each).all() for name, each in found.items())
    document = convert("f32", run, "--name", "onto-base", "--merge-onto", "base", "--no-cards")
    assert document["merged_onto"] == "base"
    base = values(Path(document["files"][0]["file"]))
    assert np.abs(base["blk.0.ffn_up.weight"] - found["blk.0.ffn_up.weight"]).max() > 0.005
    bare = convert("f32", "--adapter", run / "adapter", "--out", run, "--name", "bare", "--no-cards")
    assert bare["merged_onto"] == "base"  # of an adapter alone nobody knows what it was trained on
    manifest["adapter"]["trained_on"] = "bf16"
    (run / "medmind.json").write_text(json.dumps({**manifest, "config": {"dtype": trained}}))
    assert convert("f32", run, "--name", "later", "--no-cards")["merged_onto"] == "base"
    assert "nothing was trained on its NF4" in refusal("f16", run.parents[1] / "base", "--merge-onto", "nf4")


def test_the_single_rows_that_are_measured_are_those_that_are_written(make_run: Callable[..., Path]):
    from medmind_convert.merge import Merged

    conversion = Conversion(find(str(make_run())))
    for step in conversion.steps():
        merged = Merged(step.placement, step.tensor, step.delta)
        chosen = np.array([0, 3, 17, step.placement.shape[0] - 1])
        if step.placement.is_matrix:
            assert (merged.sample(chosen) == merged.rows(0, step.placement.shape[0])[chosen]).all()


def test_card_and_modelfile_lie_beside_and_name_every_file(make_run: Callable[..., Path]):
    run = make_run(**WIDE)
    convert("q8_0", run, "--merge-onto", "base")
    document = convert("q4_k_m", "--bits-per-weight", "6", run, "--merge-onto", "base")
    assert document["beside"] == [str(run / "trial.md"), str(run / "trial.Modelfile")]
    card = (run / "trial.md").read_text()
    for name in ("trial.q8_0.gguf", "trial.q4_k_m.gguf", "trial.fit-6bpw.gguf"):
        assert f"| `{name}` |" in card
    assert "NF4" not in card
    made = (run / "trial.Modelfile").read_text()
    assert made.startswith("FROM ./trial.fit-6bpw.gguf\nTEMPLATE ")
    assert 'SYSTEM """Answer briefly."""' in made
    assert 'PARAMETER stop "</s>"\nPARAMETER num_ctx 256\n' in made
    convert("q8_0", run, "--merge-onto", "nf4", "--force")
    assert "| merged onto | the NF4 weights" in (run / "trial.md").read_text()


def test_a_file_that_exists_is_refused_before_anything_is_measured(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from medmind_convert import fitting

    run = make_run()
    (run / "trial.fit-5bpw.gguf").write_bytes(b"mine")
    monkeypatch.delattr(fitting, "measure")
    assert "trial.fit-5bpw.gguf exists already" in refusal("--bits-per-weight", "5", run)
    assert (run / "trial.fit-5bpw.gguf").read_bytes() == b"mine"
