"""Energy: what a counter says is added up over all starts, and where there is none nothing is invented."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from medmind import artifacts
from medmind_train import energy, report_sections


def test_energy_of_all_starts_is_added_up(tmp_path: Path):
    for start in (1000.0, 7000.0):  # the second one after a reboot, or of another driver
        readings = iter([start, start + 40, *(start + 50,) * 1000])
        with energy.counted(tmp_path / energy.ENERGY, readings.__next__, every=0.01):
            deadline = time.monotonic() + 10
            while len(artifacts.read_jsonl(tmp_path / energy.ENERGY) if _there(tmp_path) else []) < 1:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(0.05)
    assert energy.total(tmp_path).joules == pytest.approx(100)


def test_watts_are_those_of_the_time_in_which_the_energy_was_counted(tmp_path: Path, monkeypatch):
    clock = iter([100.0, 150.0])
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=clock.__next__))
    with energy.counted(tmp_path / energy.ENERGY, iter([0.0, 10_000.0]).__next__, every=60):
        pass
    (tmp_path / "energy-1.jsonl").write_text('{"joules": 5000.0, "seconds": 50.0}\n')  # a second card beside it
    taken = energy.total(tmp_path)
    assert (taken.joules, taken.seconds, taken.watts) == (15_000, 50, 300)


def test_a_counter_that_fails_ends_no_training_and_hides_no_error(tmp_path: Path):
    path, readings = tmp_path / energy.ENERGY, iter([1000.0])

    def joules() -> float:
        for reading in readings:
            return reading
        raise OSError("the card does not count its energy")

    with energy.counted(path, joules, every=0.001):
        time.sleep(0.05)
    readings = iter([1000.0])
    with pytest.raises(ValueError, match="the real one"), energy.counted(path, joules, every=60):
        raise ValueError("the real one")
    assert energy.total(tmp_path) is None


def test_on_a_cpu_nothing_is_measured_and_nothing_written(tmp_path: Path):
    with energy.metered(tmp_path, "cpu"):
        pass
    assert energy.total(tmp_path) is None and not list(tmp_path.iterdir())


def test_without_a_driver_there_is_no_counter(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    assert energy.card_counter() is None


def test_a_report_sets_energy_and_price_beside_a_full_fine_tune():
    took = {
        "energy": {"joules": 3.6e6, "watts": 250.0},
        "price": {"per_hour": 2.0, "hours": 1.5, "total": 3.0},
        "memory": {"peak": 5 << 30, "estimate": False},
        "full_fine_tuning": {"estimate": True, "memory": 100 << 30, "weights": "16 bits", "computing": 1.3},
    }
    assert dict(report_sections.energy_and_price(took)) == {
        "energy of the card": "1 kWh, 250 W, evaluations while training included",
        "price": "3.00 for 1.50 hours at 2",
    }
    text = report_sections.full_fine_tuning(took)
    assert "| memory of its tensors | 5.00 GiB | about 100.00 GiB (16 bits, AdamW) |" in text
    assert "| energy | 1 kWh | about 1.3 kWh |" in text and "| price | 3.00 | about 3.90 |" in text
    assert "2 cards of 80 GiB" in text


def test_a_sample_answer_that_looks_like_markdown_stays_text():
    said = {"text": "# Title\n| a |", "ended": False}
    shown = report_sections.sample_answers(
        [{"question": "Why *me*?", "before": said, "after": {"text": "", "ended": True}, "expected": "So."}]
    )
    assert "> \\# Title\n> \\| a \\| … *(cut off)*" in shown
    assert "**Why \\*me\\*?**" in shown and "> (nothing)" in shown


def _there(run: Path) -> bool:
    return (run / energy.ENERGY).exists()
