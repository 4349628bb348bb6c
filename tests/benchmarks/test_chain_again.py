"""`medmind-bench chain` a second time: what was measured is taken, what is missing runs, and a GGUF of the base."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import bench_model
import pytest
from bench_rows import heldout_rows, write_heldout
from test_chain_report import ADAPTER, STAND_IN, command

from medmind_benchmarks.chain import chart, results, run

GIVEN = ("--rows", "2", "--threads", "1", "--force")


@pytest.fixture
def patched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are taken by a command that answers as `medmind-train score` does, and no picture is drawn."""
    script = tmp_path / "score.py"
    script.write_text(STAND_IN, encoding="utf-8")
    stand_in: Sequence[str] = [sys.executable, str(script)]
    monkeypatch.setattr(run.run, "__kwdefaults__", {**run.run.__kwdefaults__, "command": stand_in})
    monkeypatch.setattr(chart, "draw", lambda report, folder, stem: None)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A run with a GGUF of its adapter, and one of its untuned base."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    of_base = {"medmind.base.digest": "sha256:ba"}
    bench_model.write(folder / "clinic.f16.gguf", facts={**of_base, "medmind.adapter.digest": ADAPTER})
    bench_model.write(folder / "medmind-base.f16.gguf", facts=of_base)
    write_heldout(folder / "heldout.jsonl", heldout_rows(4))
    manifest = {"format": "medmind-run/1", "name": "clinic", "adapter": {"digest": ADAPTER}, "context": 256}
    (folder / "medmind.json").write_text(json.dumps(manifest))
    return folder


def asked(folder: Path) -> list[str]:
    """The stages that were scored since the last look."""
    book = folder.parent / "book"
    lines = book.read_text().splitlines() if book.exists() else []
    book.unlink(missing_ok=True)
    return [line.split("--stage ")[1].split()[0] for line in lines]


@pytest.mark.usefixtures("patched")
def test_what_was_measured_is_taken_and_what_is_missing_runs(
    clinic: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT", "merged")
    assert command(monkeypatch, str(clinic), *GIVEN) == 1
    assert "no step of this chain: medmind-base.f16.gguf" in " ".join(capsys.readouterr().err.split())
    assert asked(clinic) == ["adapter", "base", "merged", "merged-nf4"]
    monkeypatch.delenv("FAULT")
    assert command(monkeypatch, str(clinic), *GIVEN) == 0
    assert asked(clinic) == ["merged"], "the one that failed is repeated alone"
    first = results.read_report(clinic / "chain" / "chain.json")
    assert [step.label for step in first.steps] == ["base", "trained", "merged", "merged-nf4", "f16"]
    assert not list((clinic / "chain.cells").glob("*.npy")), "what is large goes"

    capsys.readouterr()
    assert command(monkeypatch, str(clinic), *GIVEN) == 0
    assert "5 of 5 steps were known" in " ".join(capsys.readouterr().err.split())
    assert asked(clinic) == [] and results.read_report(clinic / "chain" / "chain.json") == first

    bench_model.quantize(clinic / "clinic.f16.gguf", clinic / "clinic.q8_0.gguf", 7)
    assert command(monkeypatch, str(clinic), *GIVEN) == 0
    assert asked(clinic) == ["adapter"], "what the new file is held against is written again"
    more = results.read_report(clinic / "chain" / "chain.json")
    assert more.steps[:-1] == first.steps and more.step("q8_0").status == "measured"

    monkeypatch.setenv("FAULT", "adapter")  # from here on, scoring is asked for and fails
    for path in (clinic / "chain.cells").glob("stage-*.json"):
        if json.loads(path.read_text())["key"]["request"]["stage"] in ("base", "merged"):
            path.unlink()
    capsys.readouterr()
    assert command(monkeypatch, str(clinic), *GIVEN) == 1
    assert "2 of 6 steps" in " ".join(capsys.readouterr().err.split())
    assert asked(clinic) == ["adapter"], "once for both that wait for it"
    assert command(monkeypatch, str(clinic), "--rows", "3", *GIVEN[2:]) == 1
    assert asked(clinic) == ["adapter"] and (clinic / "chain.cells").exists(), "other rows are another measurement"
    assert command(monkeypatch, str(clinic), *GIVEN, "--fresh") == 1
    assert asked(clinic) == ["adapter"] and not (clinic / "chain.cells").exists()
