"""Cells that crash, hang, take too much or are killed: the rest goes on, and what was measured is kept."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import bench_model
import psutil
import pytest
from bench_quants import QUICK, SHORT, bench, planned, silent

from medmind.errors import MedmindError
from medmind_benchmarks import bandwidth, machine, markdown, need, page, quants, results, runner
from medmind_benchmarks.figures import Bandwidth
from medmind_benchmarks.matrix import Cell
from medmind_benchmarks.model_file import read
from medmind_benchmarks.outcome import Outcome
from medmind_benchmarks.process import Limits
from medmind_benchmarks.statistics import repeated
from medmind_benchmarks.store import Store


def test_a_level_that_does_not_fit_in_memory_is_refused_and_the_rest_measured(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = need.process_bytes(read(run_folder / "family.q8_0.gguf"), bench_model.CONTEXT)
    monkeypatch.setattr(machine, "available_memory", lambda: (size, 2 * size))
    outcome = quants.run(planned(run_folder, measure=("answers",)), silent)  # type: ignore[arg-type]
    whole, small = outcome.report.levels
    assert whole.status == "refused" and "free of" in whole.reason
    assert small.status == "measured" and small.quality
    assert outcome.report.reference == "q8_0"
    assert "itself quantized" in markdown.render(outcome.report)
    assert outcome.missing == [whole]


def test_a_cell_that_crashes_is_marked_and_the_rest_goes_on(run_folder: Path, tmp_path: Path) -> None:
    crashing = tmp_path / "crashing.py"
    crashing.write_text(
        "import json, sys\n"
        "from medmind_benchmarks import cell\n"
        "line = sys.stdin.readline()\n"
        "if json.loads(line).get('model', '').endswith('q8_0.gguf'):\n"
        "    sys.exit('the disk fell out')\n"
        "class Replay:\n"
        "    def readline(self): return line\n"
        "    read = staticmethod(sys.stdin.read)\n"
        "sys.stdin = Replay()\n"
        "cell.main()\n",
        encoding="utf-8",
    )
    outcome = quants.run(planned(run_folder), silent, command=[sys.executable, str(crashing)])  # type: ignore[arg-type]
    whole, lost = outcome.report.levels
    assert whole.status == "measured" and whole.prompt
    assert len(whole.prompt.tokens_per_second.samples) == 2
    assert lost.status == "failed"
    assert "answers: the measuring process ended with exit code 1: the disk fell out" in lost.reason
    assert {gap.status for gap in lost.gaps} == {"failed"}
    assert lost.reason.count("speed") == 1, "a level that crashed is not tried again in every round"
    assert outcome.missing == [lost]


def test_a_damaged_level_fails_alone_and_the_command_exits_with_1(run_folder: Path) -> None:
    path = run_folder / "family.q8_0.gguf"
    data = bytearray(path.read_bytes())
    place = data.index(b"output_norm.weight")
    data[place : place + 18] = b"output_gnome.weigh"
    path.write_bytes(data)
    result = bench(run_folder, *QUICK)
    assert result.returncode == 1
    assert "1 of 2 levels were not measured whole: q8_0 failed" in result.stderr
    report = results.read_report(run_folder / "benchmark" / "report.json")
    assert [level.status for level in report.levels] == ["measured", "failed"]


def nothing(outcome: Outcome) -> tuple[MedmindError, str]:
    """The one line of a run that measured nothing, and the page that holds every reason."""
    with pytest.raises(MedmindError, match="nothing could be measured") as caught:
        outcome.demand_whole(Path("there/report.md"))
    assert "there/report.md" in caught.value.hint
    assert page.render(outcome.report)
    return caught.value, markdown.render(outcome.report)


def test_when_nothing_can_be_measured_the_report_says_why_of_each(run_folder: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the disk fell out')"]
    error, text = nothing(quants.run(planned(run_folder, measure=("answers",)), silent, command=command))  # type: ignore[arg-type]
    assert ", answers failed: the measuring process ended" in error.message and "medmind-chat" in error.hint
    assert text.count("the disk fell out") >= 2


def test_when_every_cell_is_over_its_limit_the_hint_is_to_allow_more(run_folder: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    short = planned(run_folder, measure=("answers",), cell_seconds=0.2)
    error, text = nothing(quants.run(short, silent, command=command))  # type: ignore[arg-type]
    assert "its limit of 0.2 s" in error.message and error.hint.startswith("allow more with --cell-time")
    assert text.count("its limit of 0.2 s") >= 2
    hog = [sys.executable, "-c", "held = bytearray(2**26); import time; time.sleep(60)"]
    small = planned(run_folder, measure=("answers",), cell_memory=2**24)
    error, _ = nothing(quants.run(small, silent, command=hog))  # type: ignore[arg-type]
    assert error.hint.startswith("allow more with --cell-memory")


def test_when_no_level_fits_in_memory_the_report_says_so(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: (2**16, 2**20))
    error, text = nothing(quants.run(planned(run_folder), silent, command=["false"]))  # type: ignore[arg-type]
    assert error.message.startswith("nothing could be measured: q8_0") and "64.00 KiB free" in error.message
    assert error.hint.startswith("give smaller files")
    assert text.count("64.00 KiB free") >= 2
    short = ["--out", run_folder / "out", "--measure", "answers"]
    result = bench(run_folder, *map(str, short))
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: nothing could be measured")
    report = results.read_report(run_folder / "out" / "report.json")
    assert [level.status for level in report.levels] == ["refused", "refused"]


def test_what_was_measured_earlier_keeps_its_time_and_its_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = bandwidth.Request("bandwidth", 1, 1, 0)
    cell = Cell("f16", ("bandwidth", 0), "bandwidth", request, Bandwidth, 1, 1.0)
    found = Bandwidth(repeated([1e9, 2e9]), 1, 2**20, "read")
    answer = json.dumps({"result": asdict(found)})
    command = [sys.executable, "-S", "-c", f"print({answer!r})"]
    for load in (3.5, 0.5):
        monkeypatch.setattr(machine, "load_average", lambda load=load: load)
        outcome = runner.run([cell], Store(tmp_path, {}), Limits(), silent, command)  # type: ignore[arg-type]
        if load == 3.5:
            first = outcome
            kept = next(tmp_path.iterdir())
            kept.write_text(kept.read_text("utf-8").replace(first.created, "2026-01-02T03:04:05+00:00"), "utf-8")
    assert first.created > "2026-01-02" and outcome.reused == 1 and outcome.results == first.results
    assert (outcome.created, outcome.load_before) == ("2026-01-02T03:04:05+00:00", first.load_before)
    assert first.load_before == 3.5
    monkeypatch.setattr(machine, "llama_build", lambda: "CPU : SSE3 = 1")
    assert Store(tmp_path, {}).get(request, Bandwidth) is None, "another build of llama.cpp"


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_the_cell_and_leaves_nothing_behind(run_folder: Path) -> None:
    script = "from medmind_benchmarks.cli import main; main()"
    command = [sys.executable, "-c", script, "quants", str(run_folder), "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--repeats", "500", "--measure", "speed"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 30
    while not children and time.monotonic() < deadline:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children()
    assert children
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert not (run_folder / "benchmark").exists()
    assert not list(run_folder.glob(".*"))


def killed_after(folder: Path, settings: list[str], cells_done: int) -> dict[Path, int]:
    """Start the command, kill it when so many scores lie there, and say which those are and when they were written."""
    command = [sys.executable, "-c", "from medmind_benchmarks.cli import main; main()", "quants", str(folder)]
    process = subprocess.Popen([*command, *settings], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    cells = folder / "benchmark.cells"
    deadline = time.monotonic() + 60
    while len(list(cells.glob("score-*.json"))) < cells_done and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "benchmark").exists()
    return {path: path.stat().st_mtime_ns for path in cells.glob("score-*.json")}


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_after_a_kill_only_what_is_missing_runs(run_folder: Path) -> None:
    known = killed_after(run_folder, QUICK, 1)
    assert len(known) == 1
    result = bench(run_folder, *QUICK)
    assert result.returncode == 0, result.stderr
    report = results.read_report(run_folder / "benchmark" / "report.json")
    assert (report.conditions.cells, report.conditions.reused) == (2, 1)
    assert {path: path.stat().st_mtime_ns for path in known} == known


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_results_of_every_kind_are_taken_until_they_are_wanted_fresh(run_folder: Path) -> None:
    settings = [*SHORT, "--measure", "answers,raw,memory"]
    known = killed_after(run_folder, settings, 2)
    assert 2 <= len(known) < 4
    result = bench(run_folder, *settings)
    assert result.returncode == 0, result.stderr
    report = results.read_report(run_folder / "benchmark" / "report.json")
    assert (report.conditions.cells, report.conditions.reused) == (6, len(known))
    assert {path: path.stat().st_mtime_ns for path in known} == known
    again = bench(run_folder, *settings, "--force", "--json")
    assert json.loads(again.stdout)["conditions"]["reused"] == 6
    anew = bench(run_folder, *settings, "--force", "--fresh", "--measure", "answers", "--json")
    assert json.loads(anew.stdout)["conditions"]["reused"] == 0


@pytest.mark.slow  # it waits out a limit; test_process.py has limits of half a second
def test_a_cell_that_takes_too_long_is_in_the_report_with_its_reason(run_folder: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import json, sys, time\n"
        "from medmind_benchmarks import cell\n"
        "line = sys.stdin.readline()\n"
        "if json.loads(line)['model'].endswith('q8_0.gguf'):\n"
        "    time.sleep(60)\n"
        "class Replay:\n"
        "    def readline(self): return line\n"
        "    read = staticmethod(sys.stdin.read)\n"
        "sys.stdin = Replay()\n"
        "cell.main()\n",
        encoding="utf-8",
    )
    outcome = quants.run(
        planned(run_folder, measure=("answers",), cell_seconds=5.0),
        silent,  # type: ignore[arg-type]
        command=[sys.executable, str(slow)],
    )
    (gap,) = outcome.report.levels[1].gaps
    assert gap.reason == "it took longer than its limit of 5 s"
    assert outcome.report.levels[0].status == "measured"


def test_a_cell_that_needs_more_memory_than_there_is_is_refused_from_the_plan(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = need.process_bytes(read(run_folder / "family.f16.gguf"), bench_model.CONTEXT)
    monkeypatch.setattr(machine, "available_memory", lambda: (size, 2 * size))
    # both models do not fit side by side; the file of log-probabilities takes their place
    outcome = quants.run(planned(run_folder, measure=("answers",)), silent)  # type: ignore[arg-type]
    fidelity = outcome.report.level("q8_0").figures.answers_fidelity
    assert fidelity and fidelity.method == "base-file" and 0 < fidelity.kl_mean.value < 0.1
    assert not list((run_folder / "benchmark.cells").glob("*.rows"))
    outcome = quants.run(planned(run_folder, measure=("answers",), kl="direct"), silent)  # type: ignore[arg-type]
    (gap,) = outcome.report.level("q8_0").gaps
    assert gap.status == "refused" and "are free" in gap.reason
    assert outcome.report.level("q8_0").status == "refused"
