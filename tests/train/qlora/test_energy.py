"""Energy: what a counter says is added up over all starts, and where there is none nothing is invented."""

import time
from pathlib import Path

import pytest

from medmind import artifacts
from medmind_train import energy


def test_energy_of_all_starts_is_added_up(tmp_path: Path):
    for start in (1000.0, 7000.0):  # the second one after a reboot, or of another driver
        readings = iter([start, start + 40, *(start + 50,) * 1000])
        with energy.counted(tmp_path / energy.ENERGY, readings.__next__, every=0.01):
            deadline = time.monotonic() + 10
            while len(artifacts.read_jsonl(tmp_path / energy.ENERGY) if _there(tmp_path) else []) < 1:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(0.05)
    assert energy.total(tmp_path) == pytest.approx(100)


def test_on_a_cpu_nothing_is_measured_and_nothing_written(tmp_path: Path):
    with energy.metered(tmp_path, "cpu"):
        pass
    assert energy.total(tmp_path) is None and not list(tmp_path.iterdir())


def test_without_a_driver_there_is_no_counter(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    assert energy.card_counter() is None


def _there(run: Path) -> bool:
    return (run / energy.ENERGY).exists()
