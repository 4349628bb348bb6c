"""`medmind-bench train`: its cells, what becomes of those that fail, and what is rendered of the rest."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from medmind.errors import MedmindError
from medmind_benchmarks import cli
from medmind_benchmarks.process import CellError
from medmind_benchmarks.training import cells, chart, markdown, plan, process, results, run, tables
from medmind_benchmarks.training.cells import Cells
from medmind_benchmarks.training.plan import STEP, TrainingConfig
from medmind_benchmarks.training.results import Report, Row, Shape

GIB = 2**30

STAND_IN = """
import json, os, sys, time
given = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))
given.update((a, True) for a in sys.argv if a == "--packing" or a == "--no-packing")
mode = given["--mode"]
book = os.environ["BOOK"]
open(book, "a").write(" ".join(sys.argv[1:]) + "\\n")
faults = json.loads(os.environ.get("FAULTS", "{}"))
fault = faults.get(mode, "")
if fault == "sleep": time.sleep(60)
if fault == "crash": sys.exit("error: the weights are broken — download them again")
if fault == "abort": os.abort()
if fault == "noise": print("hello"); sys.exit()
if fault == "schema": print('{"schema": "medmind-step/0"}'); sys.exit()
if fault == "fields": print('{"schema": "medmind-step/1"}'); sys.exit()
batch, length = int(given.get("--batch", 1)), int(given.get("--length", 8))
seconds = {"fused": 0.1, "reference": 0.2, "usual": 0.4, "full": 0.25}.get(mode, 0.3)
real = batch * length
if "--no-packing" in given: real //= 4
status = fault or "measured"
measured = status == "measured" and mode != "matmul"
there = status not in ("not installed", "unsupported") and mode != "matmul"
peak = {"fused": 4, "usual": 8, "full": 54}.get(mode, 5) * 2**30
print(json.dumps({
    "schema": "medmind-step/1", "status": status, "reason": "because" if fault else "",
    "work": {"mode": mode, "base": "tiny", "synthetic": True, "parameters": 1100, "linear": 1000, "batch": batch,
        "length": length, "documents": 1, "data": given.get("--data"), "packing": None, "rank": 16, "alpha": 32.0,
        "targets": "all-linear", "cap": None, "vram": "auto", "dtype": "bfloat16"},
    "trained": 100 if there else None, "trained_bytes": 400 if there else None, "load_seconds": 1.5 if there else None,
    "memory": {"static": peak // 2, "load_allocated": peak // 2, "load_reserved": peak // 2,
        "step_allocated": peak, "step_reserved": peak + 2**28, "device_before": 2**28, "device_peak": peak + 2**30,
        "device_total": 2**37, "host_peak": 2**31, "host_pinned": None},
    "timing": {"seconds": [seconds] * 2, "median": seconds, "tokens": 2 * batch * length, "real": 2 * real,
        "supervised": real, "tokens_per_s": batch * length / seconds, "supervised_per_s": real / 2 / seconds,
        "loss_first": 10.0, "loss_last": 9.5} if measured else None,
    "matmul": {"size": 8, "dtype": "bfloat16", "seconds": [0.1], "flops_per_s": 1e9} if mode == "matmul" else None,
    "conditions": {"created": "2026-01-02T03:04:05+00:00", "device": "cuda",
        "card": os.environ.get("CARD_" + mode, "A Card"),
        "versions": {"torch": os.environ.get("TORCH_" + mode, "2")}, "flags": {"optimizer": "x"}},
}))
"""


@contextmanager
def quiet(description: str, total: float, unit: str) -> Any:
    yield lambda amount=1, status="": None


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """A command that answers as `medmind-train step` does, at once."""
    script = tmp_path / "step.py"
    script.write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("BOOK", str(tmp_path / "book"))
    return [sys.executable, "-S", str(script)]


@pytest.fixture
def bench(stand_in: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    def measure(faults: dict[str, str] | None = None, **settings: Any) -> Report:
        monkeypatch.setenv("FAULTS", json.dumps(faults or {}))
        config = TrainingConfig(**{"modes": "fused,usual", "shapes": "1x64", "repeats": 2, **settings})
        found = Cells(Path(tempfile.mkdtemp(dir=tmp_path)))
        return run.run(plan.make(config), quiet, found, command=stand_in)

    return measure


def row(report: Report, mode: str, at: str = "1×64", fill: str = "random") -> Row:
    return next(one for one in report.rows if (one.mode, str(one.shape), one.fill) == (mode, at, fill))


def test_modes_take_turns_at_each_shape(bench: Callable[..., Report], tmp_path: Path) -> None:
    bench(shapes="1x64,2x64")
    lines = (tmp_path / "book").read_text().splitlines()
    words = [line.split() for line in lines]
    done = [(one[one.index("--mode") + 1], one[one.index("--batch") + 1]) for one in words if "--batch" in one]
    turns = [("fused", "1"), ("usual", "1")] * 2 + [("fused", "2"), ("usual", "2")] * 2
    assert done == turns
    assert "matmul" in lines[0] and "matmul" in lines[-1]


def test_figures_come_from_the_cells(bench: Callable[..., Report]) -> None:
    found = row(bench(), "fused")
    assert found.speed and found.memory
    assert found.speed.tokens_per_s.median == pytest.approx(640)
    assert len(found.speed.tokens_per_s.samples) == 2
    assert found.speed.relative["usual"].median == pytest.approx(4)
    assert found.floor_share == pytest.approx(640 * 6 * 1000 / 1e9)
    assert found.memory.device_used == 4 * GIB + GIB - 2**28
    assert found.card == "A Card"


def test_a_failing_cell_leaves_the_others(bench: Callable[..., Report], tmp_path: Path) -> None:
    report = bench({"usual": "crash"}, shapes="1x64,2x64")
    found = row(report, "usual")
    assert (found.status, found.reason) == ("failed", "the weights are broken — download them again")
    assert row(report, "fused").status == "measured"
    assert (tmp_path / "book").read_text().count("--mode usual") == 2  # once a shape, not once a repeat


@pytest.mark.parametrize(
    ("fault", "words"),
    [("noise", "no JSON"), ("schema", "no medmind-step/1"), ("fields", "wrong fields"), ("abort", "SIGABRT")],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_cell_that_answers_badly_says_how(bench: Callable[..., Report], fault: str, words: str) -> None:
    assert words in row(bench({"usual": fault}), "usual").reason


def test_a_cell_over_its_time_is_ended(bench: Callable[..., Report]) -> None:
    began = time.monotonic()
    report = bench({"usual": "sleep"}, timeout=2)
    assert time.monotonic() - began < 20
    assert (row(report, "usual").status, row(report, "fused").status) == ("failed", "measured")
    assert row(report, "usual").reason == "it took longer than 2 s and was ended"


def test_full_memory_is_kept_with_what_it_reached(bench: Callable[..., Report]) -> None:
    found = row(bench({"usual": "out of memory"}), "usual")
    assert (found.status, found.speed) == ("out of memory", None)
    assert found.memory and found.memory.peak == 8 * GIB


def test_an_absent_peer_is_asked_once(bench: Callable[..., Report], tmp_path: Path) -> None:
    report = bench({"liger": "not installed"}, modes="fused,liger", shapes="1x64,2x64")
    assert [one.status for one in report.rows] == ["measured", "not installed"] * 2
    assert (tmp_path / "book").read_text().count("--mode liger") == 1


def test_nothing_measured_is_an_error(bench: Callable[..., Report]) -> None:
    with pytest.raises(MedmindError, match="nothing could be measured: 1×64 fused failed: the weights are broken"):
        bench({"fused": "crash"}, modes="fused")


def test_two_cards_are_not_one_report(bench: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARD_usual", "Another Card")
    with pytest.raises(MedmindError, match="A Card, Another Card"):
        bench()


def test_data_is_packed_for_ours_and_padded_for_others(bench: Callable[..., Report], tmp_path: Path) -> None:
    report = bench(data="sample")
    packed, padded = row(report, "fused", fill="packed"), row(report, "usual", fill="padded")
    assert packed.speed and padded.speed
    assert (packed.padding, padded.padding) == (0, 0.75)
    assert packed.speed.relative["usual"].median == pytest.approx(16)
    assert "--data sample --no-packing" in (tmp_path / "book").read_text()
    page = markdown.render(report)
    assert "## Real data" in page
    assert "| 1×64 fused | – | 16.00× |" in page
    # the rows of data are no part of the tables over random tokens
    assert len(tables.speed(report).rows) == 2


def cell_with_a_child(folder: Path) -> tuple[list[Path], str]:
    """A script that starts another process, and where both write their ids, its own last."""
    places = [folder / name for name in ("cell", "child")]
    script = (
        "import os, subprocess, sys, time; from pathlib import Path\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"Path({str(places[1])!r}).write_text(str(child.pid)); Path({str(places[0])!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    return places, script


def demand_gone(places: list[Path]) -> None:
    for place in places:
        pid = int(place.read_text())
        deadline = time.monotonic() + 10
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"{place.name} is still there"
            time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
def test_interrupting_the_parent_ends_the_cell_and_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, script = cell_with_a_child(tmp_path)

    def interrupted(self: Any, timeout: float | None = None) -> int:
        if timeout is None:
            return whole(self)
        while not places[0].exists() or not places[0].read_text():
            time.sleep(0.02)
        raise KeyboardInterrupt

    whole = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.run_step([sys.executable, "-c", script], timeout=50)
    demand_gone(places)


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_a_cell_and_what_it_started_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    places, script = cell_with_a_child(tmp_path)
    run_it = (
        "import sys\nfrom medmind_benchmarks.training import process\n"
        f"process.run_step([sys.executable, '-c', {script!r}], timeout=50)"
    )
    parent = subprocess.Popen([sys.executable, "-c", run_it])
    deadline = time.monotonic() + 30
    while not places[0].exists() or not places[0].read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    demand_gone(places)


def test_the_signal_and_the_code_that_end_a_cell_are_told() -> None:
    for script, words in (
        ("import os; os.kill(os.getpid(), 9)", "it was killed .SIGKILL."),
        ("import os; os.abort()", "it crashed .SIGABRT."),
        ("import sys; sys.exit('error: no room')", "^no room$"),
        ("import sys; print('odd', file=sys.stderr); sys.exit(7)", "exit code 7: odd"),
    ):
        with pytest.raises(CellError, match=words):
            process.run_step([sys.executable, "-c", script], timeout=50)


def test_a_report_survives_json(bench: Callable[..., Report]) -> None:
    report = bench({"liger": "out of memory"}, modes="fused,liger,full", data="sample", price=2.5)
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report
    assert markdown.render(again) == markdown.render(report)


@pytest.mark.parametrize(
    ("damage", "words"),
    [({"schema": "other/1"}, "no benchmark of training"), ({"rows": 3}, r"Report\.rows"), ({"extra": 1}, "extra")],
)
def test_json_of_another_shape_is_refused(bench: Callable[..., Report], damage: dict[str, object], words: str) -> None:
    with pytest.raises(MedmindError, match=words):
        Report.from_json({**bench(repeats=1).to_json(), **damage})


def test_the_page_tells_speed_only_beside_its_card(bench: Callable[..., Report]) -> None:
    report = bench({"liger": "not installed"}, modes="fused,liger,usual,full", price=3.6)
    page = markdown.render(report)
    assert "| 1×64 fused | 640 (640–640) | A Card |" in page
    assert "1×64 fused: 640 tokens/s on A Card, 4.00 GiB at the peak: 4.00× the speed of usual at 50% of its" in page
    assert "true of it alone" in page
    assert "- **1×64 liger** not installed: because" in page
    assert "6 FLOP × 1,000 weights" in page
    # against the full fine-tune: 4 of 54 GiB, and 3.6 an hour at 640 and 256 tokens a second
    assert "| 1×64 fused | -92.6 % | 4.00 GiB / 54.00 GiB | 100 / 100 | 400 B / 400 B | 1,562 / 3,906 |" in page
    assert "| 1.56 / 3.91 |" in page


def test_without_a_full_fine_tune_the_page_says_how_to_get_one(bench: Callable[..., Report]) -> None:
    assert "add `full` to `--modes`" in markdown.render(bench())
    page = markdown.render(bench({"full": "out of memory"}, modes="fused,full"))
    assert "1×64 full: out of memory at 54.00 GiB, so that nothing can be compared" in page


def test_the_terminal_fits_80_columns(bench: Callable[..., Report]) -> None:
    report = bench({"unsloth": "not installed"}, modes="fused,reference,usual,unsloth,full", data="sample")
    for content in tables.terminal(report):
        lines = [content.columns, *content.rows]
        width = sum(2 + max(len(line[at]) for line in lines) for at in range(len(content.columns)))
        assert width <= 80, content


def test_the_picture_has_a_colour_a_mode_and_a_marker_a_shape(bench: Callable[..., Report]) -> None:
    report = bench({"liger": "not installed"}, modes="fused,usual,liger,full", shapes="1x64,2x64")
    figure = chart.compose(report)
    (axes,) = figure.axes
    points = {str(one.get_label()): one.lines[0] for one in axes.containers}  # type: ignore[attr-defined]
    assert points.keys() == {f"{shape} {mode}" for shape in ("1×64", "2×64") for mode in ("fused", "usual", "full")}
    assert points["1×64 fused"].get_xdata()[0] == 4
    assert points["2×64 fused"].get_ydata()[0] == pytest.approx(1280)
    assert points["1×64 fused"].get_color() == points["2×64 fused"].get_color() != points["1×64 usual"].get_color()
    assert points["1×64 fused"].get_marker() == points["1×64 full"].get_marker() != points["2×64 full"].get_marker()
    assert axes.get_ylabel() == "tokens/s on A Card"
    assert axes.get_xscale() == "log"
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "liger (not installed)" in named


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modes": "fused,usul"}, "nearest: usual"),
        ({"modes": "matmul"}, "--modes cannot be 'matmul'"),
        ({"modes": "fused,"}, "empty entry"),
        ({"shapes": "1024"}, "BATCHxLENGTH"),
        ({"shapes": "0x64"}, "BATCHxLENGTH"),
        ({"synthetic": "mistral-7b"}, "--scratch"),
        ({"synthetic": "mistral-7b", "base": "a"}, "exclude"),
    ],
)
def test_settings_are_checked_before_the_first_cell(settings: dict[str, str], words: str) -> None:
    with pytest.raises(MedmindError, match=words):
        plan.make(TrainingConfig(**settings))  # type: ignore[arg-type]


def test_shapes_and_modes_are_taken_once() -> None:
    made = plan.make(TrainingConfig(modes="usual,fused,usual", shapes="1x64, 1×64,2x64"))
    assert [(cell.mode, cell.shape) for cell in made.cells] == [
        ("usual", Shape(1, 64)),
        ("fused", Shape(1, 64)),
        ("usual", Shape(2, 64)),
        ("fused", Shape(2, 64)),
    ]


def test_the_command_writes_a_report_and_fails_when_a_cell_did(
    stand_in: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run.run, "__kwdefaults__", {"command": stand_in})
    monkeypatch.setenv("FAULTS", '{"usual": "crash"}')
    out = tmp_path / "report"

    def call(*arguments: str) -> tuple[int, str, str]:
        given = ["--modes", "fused,usual", "--shapes", "1x64", "--repeats", "1", "--out", str(out), *arguments]
        monkeypatch.setattr(sys, "argv", ["medmind-bench", "train", *given])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    code, shown, said = call()
    assert code == 1
    assert "1 of 2 cells failed: 1×64 usual: the weights are broken" in said
    assert "640" in shown and "A Card" in shown
    assert {file.name for file in out.iterdir()} == {"report.json", "report.md", markdown.CHART, "cells"}
    assert {file.stem for file in (out / "cells").iterdir()} == {"matmul-before", "1x64-fused-random-1", "matmul-after"}
    assert not (tmp_path / "report.cells").exists()
    assert results.read_report(out / "report.json").modes == ("fused", "usual")
    assert call()[0] == 1  # taken
    monkeypatch.setenv("FAULTS", "{}")
    (tmp_path / "book").unlink()
    code, shown, _ = call("--resume", "--json")  # what failed alone is measured again
    assert code == 0
    assert json.loads(shown)["schema"] == results.SCHEMA
    assert [row["status"] for row in json.loads(shown)["rows"]] == ["measured"] * 2
    assert "--mode usual" in (book := (tmp_path / "book").read_text()) and book.count("\n") == 1
    assert call("--force", "--json")[0] == 0
    assert (tmp_path / "book").read_text().count("\n") == 5


def test_a_benchmark_that_was_cut_goes_on_where_it_was(
    stand_in: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    config = TrainingConfig(modes="fused,usual,full", shapes="1x64", repeats=2, scratch="here", synthetic="tiny")

    def start(given: TrainingConfig, **how: bool) -> Report:
        found = cells.prepare(out, **{"resume": False, "force": False, **how})
        return run.run(plan.make(given), quiet, found, command=stand_in)

    whole, done = run.run_step, []

    def cut(*given: Any, **named: Any) -> Any:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(whole(*given, **named))
        return done[-1]

    monkeypatch.setattr(run, "run_step", cut)
    with pytest.raises(KeyboardInterrupt):
        start(config)
    monkeypatch.setattr(run, "run_step", whole)
    assert len(list((tmp_path / "report.cells").iterdir())) == 4 and not out.exists()
    with pytest.raises(MedmindError, match=r"holds the cells of a benchmark that was cut.*--resume"):
        start(config)
    with pytest.raises(MedmindError, match="other settings: --rank 16, now --rank 8"):
        start(replace(config, rank=8), resume=True)
    (tmp_path / "book").unlink()
    report = start(replace(config, price=2.0, timeout=9.0, scratch="there"), resume=True)
    assert {len(one.speed.tokens_per_s.samples) for one in report.rows if one.speed} == {2}
    assert len((tmp_path / "book").read_text().splitlines()) == 2 * 3 + 2 - 4
    assert report.conditions.price == 2.0
    (tmp_path / "report.cells" / "note.txt").write_text("mine")
    for how in ({"resume": True}, {"force": True}):
        with pytest.raises(MedmindError, match=r"note\.txt is no cell"):
            start(config, **how)
    (tmp_path / "report.cells" / "note.txt").unlink()
    start(config, force=True)
    with pytest.raises(MedmindError, match="nothing to resume"):
        cells.prepare(tmp_path / "other", resume=True, force=False)


def test_cells_of_other_versions_are_not_joined(bench: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_usual", "3")
    with pytest.raises(MedmindError, match="different versions: torch 2; torch 3"):
        bench()


def test_the_seed_claims_stand_in_report_page_and_verdict(bench: Callable[..., Report]) -> None:
    report = bench(modes="fused,usual,full", price=3.6)
    ours, full = row(report, "fused"), row(report, "full")
    assert ours.against_full and full.against_full is None
    assert ours.against_full.memory == pytest.approx(4 / 54)
    assert (ours.against_full.trained, ours.against_full.kept) == (1, 1)
    assert ours.against_full.seconds == pytest.approx(0.1 / 0.25)
    assert ours.seconds_per_million == pytest.approx(1e6 / 640)
    assert ours.cost_per_million == pytest.approx(1e6 / 640 * 3.6 / 3600)
    words = (
        "1×64 fused against a full fine-tune at the same batch: -92.6 % memory (4.00 GiB, 54.00 GiB), 100 trained "
        "parameters of 100 (100 %), 400 B to keep instead of 400 B, 1,562 s a million tokens instead of 3,906 s on "
        "A Card, at a cost of 1.56 instead of 3.91"
    )
    assert words in tables.verdict(report) and words in markdown.render(report)
    assert "at a cost" not in tables.verdict(bench(modes="fused,full"))
    assert "full fine-tune" not in tables.verdict(bench({"full": "out of memory"}, modes="fused,full"))


def test_the_real_command_answers_as_the_parent_reads(tmp_path: Path) -> None:
    """One process, no stand-in: flags and document of both rooms belong together."""
    config = TrainingConfig(device="cpu", steps=1, warmup=0, shapes="1x16", modes="reference", rank=2)
    made = plan.make(config)
    found = process.run_step([*STEP, *made.command(made.cells[0], seed=1)], timeout=300)
    assert (found.status, found.work.rank, found.timing is not None) == ("measured", 2, True)
    with pytest.raises(CellError, match="--rank cannot be 0"):
        made = plan.make(TrainingConfig(device="cpu", shapes="1x16", modes="reference", rank=0))
        process.run_step([*STEP, *made.command(made.cells[0], seed=1)], timeout=300)


@pytest.mark.slow
def test_end_to_end_on_this_processor(tmp_path: Path) -> None:
    """`reference` and `usual` on the embedded base, on random tokens and on real rows, and a peer that is not there."""
    config = TrainingConfig(
        modes="reference,usual,liger",
        shapes="2x64",
        device="cpu",
        steps=2,
        warmup=1,
        repeats=1,
        rank=4,
        data="sample",
        timeout=600,
    )
    report = run.run(plan.make(config), quiet, Cells(tmp_path))
    assert {(one.mode, one.fill) for one in report.rows if one.status == "measured"} == {
        ("reference", "random"),
        ("reference", "packed"),
        ("usual", "random"),
        ("usual", "padded"),
    }
    assert row(report, "liger", "2×64").status in ("not installed", "unsupported")
    ours, theirs = row(report, "reference", "2×64"), row(report, "usual", "2×64")
    assert ours.loss_first == pytest.approx(theirs.loss_first, rel=0.02)
    assert ours.trained == theirs.trained
    assert 0 < (ours.floor_share or 0) < 1
    assert report.conditions.device == "cpu"
    assert os.path.basename(report.conditions.base) == "medmind-base"  # noqa: PTH119
    assert "resident on the host" in markdown.render(report)
