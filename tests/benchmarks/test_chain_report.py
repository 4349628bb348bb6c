"""`medmind-bench chain`: every step on the same tokens, what becomes of those that fail, and what is rendered."""

import dataclasses
import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench_model
import numpy as np
import pytest
from bench_rows import heldout_rows, write_heldout

from medmind.errors import MedmindError
from medmind_benchmarks import cli, score, texts
from medmind_benchmarks.chain import cell, chart, joining, markdown, plan, results, run, stages, tables
from medmind_benchmarks.chain.plan import ChainConfig, Plan
from medmind_benchmarks.chain.results import Report, Step
from medmind_benchmarks.examples import Example
from medmind_benchmarks.process import CellError
from medmind_benchmarks.texts import Text

ADAPTER = "sha256:ab"
STAND_IN = """
import json, os, sys, zlib
from pathlib import Path
import numpy as np
from medmind_train.score import tokens

flags = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))
stage, run = flags["--stage"], Path(sys.argv[2])
with open(run.parent / "book", "a") as book:
    book.write(" ".join(sys.argv[1:]) + chr(10))
if os.environ.get("FAULT") == stage:
    sys.exit("error: the card caught fire — take another")
model = next(run.glob("*.f16.gguf"))
if stage == "adapter":
    from medmind_benchmarks import examples, model_file, score, texts
    from medmind_benchmarks.opening import opened
    from medmind_train.examples import Example

    file = Path(flags["--write"])
    rows = examples.read_rows(Path(flags["--heldout"]))[: int(flags["--rows"]) or None]
    with texts.speaker(model_file.read(model)) as spoken:
        text = texts.answers(spoken, rows, range(len(rows)), context=256, system_prompt="")
    found = [Example(row["id"], one.tokens, one.start, True) for row, group in zip(rows, text.groups) for one in group]
    with opened(model, context=256, threads=1) as engine:
        size = len(engine.vocabulary)
        probabilities = np.concatenate(
            [part for group in text.groups for one in group for part, _ in score.blocks(engine, one)]
        )
    np.save(file, probabilities.astype(np.float32))
    scored = tokens.Tokens("sha256:ab", size, tuple(found), 0)
    tokens.write(scored, tokens.beside(file))
else:
    file = Path(flags["--against"])
    scored, probabilities = tokens.read(tokens.beside(file)), np.load(file)
sums, at = {}, 0
for one in scored.examples:
    targets = np.array(one.ids[one.answer :])
    nll = -float(probabilities[np.arange(at, at + len(targets)), targets].sum(dtype=np.float64))
    at += len(targets)
    before = sums.get(one.row, (0, 0.0))
    sums[one.row] = (before[0] + len(targets), before[1] + nll)
slope = {"base": 1.2}.get(stage, 1.0)
kl = {"adapter": None, "base": 0.5, "merged": 0.02, "merged-nf4": 0.0}[stage]
print(json.dumps({
    "schema": os.environ.get("SCHEMA", "medmind-score/1"), "stage": stage, "run": "clinic", "base": "a-base",
    "adapter": "sha256:ab", "weights": "nf4" if stage == "adapter" else "bfloat16", "device": "A Card",
    "dtype": "float32", "vocabulary": scored.vocabulary, "tokens": scored.count, "left_out": 3,
    "token_digest": "sha256:00" if os.environ.get("FAULT") == stage + " tokens" else scored.digest,
    "rows": [{"row": row, "tokens": count, "nll": nll * slope, "kl": None if kl is None else kl * count,
        "same_top": None if kl is None else count} for row, (count, nll) in sums.items()],
    "divergence": None if kl is None else {"median": kl, "p99": kl, "most": kl},
    "file": flags.get("--write"), "seconds": 0.5, "versions": {"torch": "2"},
}))
"""


@contextmanager
def quiet(description: str, total: float, unit: str) -> Any:
    yield lambda amount=1, status="": None


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: manifest, held-out rows, three GGUFs of its adapter."""
    folder = tmp_path_factory.mktemp("runs") / "clinic"
    folder.mkdir()
    whole = bench_model.write(folder / "clinic.f16.gguf", facts={"medmind.adapter.digest": ADAPTER})
    bench_model.quantize(whole, folder / "clinic.q8_0.gguf", 7)
    bench_model.quantize(whole, folder / "clinic.q2_k.gguf", 10)
    write_heldout(folder / "heldout.jsonl", heldout_rows(8))
    manifest = {"format": "medmind-run/1", "name": "clinic", "adapter": {"digest": ADAPTER}, "context": 256}
    (folder / "medmind.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """A command that answers as `medmind-train score` does; its trained model is the f16 file itself."""
    script = tmp_path_factory.mktemp("command") / "score.py"
    script.write_text(STAND_IN, encoding="utf-8")
    return [sys.executable, str(script)]


@pytest.fixture(scope="module")
def found(clinic: Path, stand_in: Sequence[str]) -> tuple[Plan, run.Found]:
    planned = plan.make(clinic, None, clinic / "found", None, ChainConfig(rows=6, threads=1))
    return planned, run.run(planned, quiet, command=stand_in)


@pytest.fixture
def report(found: tuple[Plan, run.Found]) -> Report:
    return joining.report(*found)


def nats(step: Step) -> float:
    assert step.divergence
    return step.divergence.mean.value


def test_each_step_is_held_against_the_trained_model_on_the_same_tokens(report: Report) -> None:
    assert [step.label for step in report.steps] == ["base", "trained", "merged", "merged-nf4", "f16", "q8_0", "q2_k"]
    assert all(step.status == "measured" for step in report.steps)
    f16, q8_0, q2_k = (report.step(label) for label in ("f16", "q8_0", "q2_k"))
    trained = report.of("trained").perplexity
    assert trained and f16.perplexity and f16.perplexity.value == pytest.approx(trained.value, rel=1e-5)
    assert abs(nats(f16)) < 1e-6 and f16.divergence and f16.divergence.same_top.value == 1
    assert 1e-6 < nats(q8_0) < nats(q2_k) / 10
    assert q2_k.change and q2_k.against_trained and q2_k.change.value == pytest.approx(q2_k.against_trained.value)
    base = report.of("base")
    assert base.perplexity and trained.value**1.2 == pytest.approx(base.perplexity.value)
    assert nats(base) == pytest.approx(0.5) and not base.change
    change = report.of("trained").change
    assert change and change.value == pytest.approx(trained.value / base.perplexity.value)


def test_engines_are_compared_on_the_unquantized_files_alone(report: Report) -> None:
    (one,) = report.agreement
    assert one.label == "f16" and one.agrees and abs(one.difference) < 1e-5


def test_engines_that_disagree_are_said_to(found: tuple[Plan, run.Found]) -> None:
    planned, measured = found
    merged = measured.stages["merged"]
    off = tuple(dataclasses.replace(row, nll=row.nll + 0.002 * row.tokens) for row in merged.rows)
    other = dataclasses.replace(measured, stages={**measured.stages, "merged": dataclasses.replace(merged, rows=off)})
    report = joining.report(planned, other)
    assert not report.agreement[0].agrees
    assert report.agreement[0].difference == pytest.approx(math.exp(-0.002) - 1, rel=1e-2)
    assert any("do NOT" in line for line in tables.verdict(report))


def test_a_file_is_held_against_the_merge_that_it_says_it_was_made_of(found: tuple[Plan, run.Found]) -> None:
    planned, measured = found
    first = planned.files[0]
    model = dataclasses.replace(first.model, metadata={**first.model.metadata, "medmind.adapter.merged_onto": "nf4"})
    files = (dataclasses.replace(first, model=model), *planned.files[1:])
    merged = measured.stages["merged-nf4"]
    off = tuple(dataclasses.replace(row, nll=row.nll + 0.002 * row.tokens) for row in merged.rows)
    other = {**measured.stages, "merged-nf4": dataclasses.replace(merged, rows=off)}
    report = joining.report(dataclasses.replace(planned, files=files), dataclasses.replace(measured, stages=other))
    assert report.step("f16").before == "merged-nf4" and report.step("q8_0").before == "merged"
    assert [(one.label, one.agrees) for one in report.agreement] == [("f16", False)]


def test_the_nearer_of_the_two_merges_is_named(report: Report) -> None:
    def said(nats: float, error: float | None) -> str:
        other = report.of("merged-nf4")
        assert other.divergence
        mean = dataclasses.replace(other.divergence.mean, value=nats, error=error)
        moved = dataclasses.replace(other, divergence=dataclasses.replace(other.divergence, mean=mean))
        steps = tuple(moved if step is other else step for step in report.steps)
        return "\n".join(tables.verdict(dataclasses.replace(report, steps=steps)))

    assert "Nearer to the trained model is the merge onto NF4." in said(0.001, 0.002)
    assert "Nearer to the trained model is the merge onto the base." in said(0.04, 0.002)
    assert "Neither is nearer beyond the noise." in said(0.021, 0.002)
    assert "nearer to the trained model, a single row does not tell" in said(0.001, None)
    without = dataclasses.replace(report, steps=tuple(step for step in report.steps if step.kind != "merged-nf4"))
    assert (
        "NF4" not in "\n".join(tables.verdict(without)) and "merged-nf4" not in markdown.render(without).split("KL")[0]
    )


def test_the_report_survives_json_and_another_document_is_refused(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(report.to_json(), allow_nan=False))
    assert results.read_report(path) == report
    assert (report.conditions.batch, report.conditions.flash) == (512, True)
    before = {name: value for name, value in report.to_json()["conditions"].items() if name not in ("batch", "flash")}
    path.write_text(json.dumps({**report.to_json(), "schema": "medmind-benchmark-chain/1", "conditions": before}))
    assert results.read_report(path) == report
    path.write_text(json.dumps({**report.to_json(), "schema": "medmind-benchmark-quants/2"}))
    with pytest.raises(MedmindError, match="medmind-bench chain"):
        results.read_report(path)


def test_rows_add_up_to_the_report(found: tuple[Plan, run.Found], report: Report) -> None:
    rows = joining.rows(found[1])
    assert len(rows) == 6 and sum(row["tokens"] for row in rows) == report.conditions.tokens
    for step in report.steps:
        nll = sum(row["nll"][step.label] for row in rows) / report.conditions.tokens
        assert step.perplexity and math.exp(nll) == pytest.approx(step.perplexity.value)
    assert sum(row["kl"]["q2_k"] for row in rows) / report.conditions.tokens == pytest.approx(nats(report.step("q2_k")))


def test_the_page_has_every_step_and_what_was_not_measured(report: Report) -> None:
    page = markdown.render(report)
    for step in report.steps:
        assert f"| {step.label} |" in page
    assert "Training took the held-out perplexity from" in page
    assert re.search(r"file by file: .*q2_k [+-]\d", page)
    assert "Not measured" not in page
    broken = dataclasses.replace(
        report.step("q2_k"), status="failed", reason="it fell over", perplexity=None, divergence=None, change=None
    )
    page = markdown.render(dataclasses.replace(report, steps=(*report.steps[:-1], broken)))
    assert "- **q2_k** failed: it fell over" in page
    for content in (tables.steps(report), tables.terminal(report)):
        assert {len(row) for row in content.rows} == {len(content.columns)}


def test_the_chart_has_a_point_for_each_figure(report: Report) -> None:
    upper, lower = chart.compose(report).axes
    assert len(upper.containers) == 7 and len(lower.containers) == 6
    assert [text.get_text().split("\n")[0] for text in lower.get_xticklabels()] == [step.label for step in report.steps]


@pytest.fixture
def copy(clinic: Path, tmp_path: Path) -> Path:
    """The run with one small file, for what goes wrong."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    for name in ("medmind.json", "heldout.jsonl", "clinic.f16.gguf"):
        shutil.copyfile(clinic / name, folder / name)
    return folder


def test_a_step_that_fails_is_in_the_report_and_the_chain_goes_on_with_it(
    copy: Path, stand_in: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan.make(copy, None, None, None, ChainConfig(rows=2, threads=1))
    monkeypatch.setenv("FAULT", "base")
    first = joining.report(planned, run.run(planned, quiet, command=stand_in))
    base = first.of("base")
    assert base.status == "failed" and base.reason.startswith("the card caught fire") and not base.perplexity
    assert first.step("f16").status == first.of("merged").status == "measured"
    monkeypatch.delenv("FAULT")
    second = joining.report(planned, run.run(planned, quiet, command=stand_in))
    assert second.of("base").status == "measured" and second.step("f16") == first.step("f16")
    asked = [line.split("--stage ")[1].split()[0] for line in (copy.parent / "book").read_text().splitlines()]
    assert asked == ["adapter", "base", "merged", "merged-nf4", "base"]
    other = plan.make(copy, None, None, None, ChainConfig(rows=3, threads=1))
    (copy / "chain.cells" / ".trained.npy.1.partial").write_bytes(b"of a killed process")
    again = stages.Stages(other, stand_in)
    names = {path.name for path in (copy / "chain.cells").iterdir()}
    assert names and not any(name.endswith((".npy", ".partial")) for name in names), "what is large serves one setting"
    monkeypatch.setenv("FAULT", "adapter")
    with pytest.raises(CellError):
        again.trained()
    assert {path.name for path in (copy / "chain.cells").iterdir()} == names, "the results of other settings stay"
    stages.forget(other)
    assert {path.name for path in copy.iterdir()} == {"medmind.json", "heldout.jsonl", "clinic.f16.gguf"}


@pytest.mark.parametrize(("variable", "value", "words"), [("FAULT", "adapter", "fire"), ("SCHEMA", "x/1", "no med")])
def test_without_the_trained_model_there_is_no_chain(
    copy: Path, stand_in: Sequence[str], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    planned = plan.make(copy, None, None, None, ChainConfig(rows=2, threads=1))
    with pytest.raises(MedmindError, match=f"the trained model could not be scored: .*{words}"):
        run.run(planned, quiet, command=stand_in)
    assert {path.name for path in copy.iterdir()} == {"medmind.json", "heldout.jsonl", "clinic.f16.gguf"}


def test_what_cannot_be_a_chain_is_refused_before_anything_runs(clinic: Path, copy: Path, tmp_path: Path) -> None:
    def make(folder: Path, heldout: Path | None = None) -> Plan:
        return plan.make(folder, heldout, None, None, ChainConfig())

    with pytest.raises(MedmindError, match="is not a run directory"):
        make(tmp_path / "nothing")
    with pytest.raises(MedmindError, match=r"nowhere\.jsonl does not exist"):
        make(copy, tmp_path / "nowhere.jsonl")
    (copy / "heldout.jsonl").unlink()
    with pytest.raises(MedmindError, match="there is no held-out set"):
        make(copy)
    shutil.copyfile(clinic / "heldout.jsonl", copy / "heldout.jsonl")
    (copy / "other.gguf").write_bytes(b"no model")
    with pytest.raises(MedmindError, match=r"other\.gguf"):
        make(copy)
    (copy / "other.gguf").unlink()
    bench_model.write(copy / "other.gguf", facts={"medmind.adapter.digest": "sha256:cd"})
    refused = {file.label: file.refusal for file in make(copy).files}
    assert refused == {"clinic.f16.gguf": "", "other.gguf": "it was made of an adapter that is not this run's"}
    (copy / "clinic.f16.gguf").unlink()
    (copy / "other.gguf").unlink()
    with pytest.raises(MedmindError, match=r"medmind-convert gguf f16 q8_0 q4_k_m"):
        make(copy)


def test_the_untuned_base_beside_the_files_is_no_step(copy: Path) -> None:
    """It lies there for `medmind-bench quants`, which compares with it."""
    base = {"medmind.base.digest": "sha256:b"}
    bench_model.write(copy / "clinic.f16.gguf", facts={**base, "medmind.adapter.digest": ADAPTER})
    bench_model.write(copy / "base.f16.gguf", seed=5, facts=base)
    planned = plan.make(copy, None, None, None, ChainConfig())
    assert [(file.label, file.refusal) for file in planned.files] == [("f16", "")]
    assert planned.left_out == ("base.f16.gguf",)
    bench_model.write(copy / "base.f16.gguf", seed=5, facts={"medmind.base.digest": "sha256:c"})
    (refused,) = (file for file in plan.make(copy, None, None, None, ChainConfig()).files if file.refusal)
    assert refused.refusal == "it was made of no adapter", "of another base: it is in the wrong place"


def test_a_file_that_memory_cannot_hold_is_refused_by_the_plan(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.machine, "available_memory", lambda: (1000, 2000))
    assert "needs" in plan.make(copy, None, None, None, ChainConfig()).files[0].refusal


def test_rows_that_do_not_fit_file_or_text_are_refused(clinic: Path, tmp_path: Path) -> None:
    place, rows = tmp_path / "text.json", tmp_path / "rows.npy"
    texts.write(Text(64, ((Example((1, 270, 271, 272), 2, cut=False),),), 0, 0), place)

    def measure(shape: tuple[int, int]) -> score.Result:
        np.save(rows, np.full(shape, -math.log(shape[1]), np.float32))
        request = cell.Request("against-trained", str(clinic / "clinic.f16.gguf"), str(place), str(rows), 1)
        return cell.measure(request, lambda: None)

    size = bench_model.VOCABULARY
    assert measure((2, size)).tokens == (2,)
    with pytest.raises(MedmindError, match="for 2 tokens"):
        measure((3, size))
    with pytest.raises(MedmindError, match=f"{size} tokens and the trained model {size + 1}"):
        measure((2, size + 1))
    rows.unlink()
    with pytest.raises(MedmindError, match="cannot be read"):
        cell.measure(cell.Request("against-trained", "x", str(place), str(rows), 1), lambda: None)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["medmind-bench", "chain", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_says_what_is_amiss_goes_on_with_it_and_leaves_a_report(
    copy: Path, stand_in: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.run, "__kwdefaults__", {**run.run.__kwdefaults__, "command": stand_in})
    monkeypatch.setenv("FAULT", "merged tokens")
    given = (str(copy), "--rows", "2", "--threads", "1")
    out = copy / "chain"
    assert command(monkeypatch, *given) == 1
    shown, err = capsys.readouterr()
    assert "1 of 5 steps were not measured: merged failed: it scored other tokens" in " ".join(err.split())
    assert "f16" in shown and "- **merged** failed" in (out / "chain.md").read_text(encoding="utf-8")
    monkeypatch.delenv("FAULT")
    assert command(monkeypatch, *given) == 1
    assert "exists already" in capsys.readouterr().err
    assert command(monkeypatch, *given, "--force", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "chain.json").read_text(encoding="utf-8")) and Report.from_json(document)
    assert {path.name for path in out.iterdir()} == {"chain.json", "chain.md", "chain.png", "chain.svg", "rows.jsonl"}
    assert not list(copy.glob("chain.cells/*.npy"))
    asked = [line.split("--stage ")[1].split()[0] for line in (copy.parent / "book").read_text().splitlines()]
    assert asked == ["adapter", "base", "merged", "merged-nf4", "merged"]
    (out / "chain.json").unlink()
    assert command(monkeypatch, *given, "--force") == 1
    assert "is not an earlier report" in capsys.readouterr().err


def test_the_committed_results_are_readable_and_their_engines_agree() -> None:
    report = results.read_report(Path(__file__).parents[2] / "benchmarks" / "results" / "medmind-tiny-chain.json")
    assert {one.label for one in report.agreement} == {"f16"}
    assert all(one.agrees and abs(one.difference) < results.AGREEMENT for one in report.agreement)
    assert nats(report.of("merged")) < nats(report.step("q2_k"))
