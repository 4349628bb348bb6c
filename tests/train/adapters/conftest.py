"""What the adapter tests share: a small base in 4 bit with an adapter on it, and the command in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medmind.base import Base
from medmind_train import cli
from medmind_train import model as models


@pytest.fixture(scope="session")
def base(small_base: Base) -> Base:
    return small_base


@pytest.fixture
def adapted(base: Base) -> Callable[..., Any]:
    """The base in NF4 with a fresh adapter; settings as `add_adapter` takes them."""

    def make(dtype: Any = "float32", **settings: Any) -> Any:
        shape = {"targets": "qv", "rank": 4, "alpha": 8.0, "dropout": 0.0, "checkpointing": False, "seed": 1}
        return models.add_adapter(models.load_base(base, "cpu", dtype), base, **{**shape, **settings})

    return make


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Exit code 1, nothing on stdout, and one error line that has all the words."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 1, self.err
        assert self.out == ""
        assert len(errors) == 1 and self.err.rstrip().endswith(errors[0]), self.err
        for word in words:
            assert word in errors[0]


@pytest.fixture
def qlora(
    base: Base, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Result]:
    """Run `medmind-train qlora` on the small base in this process, in an empty folder."""
    recipe = ("--data", "sample", "--device", "cpu", "--lr", "1e-3", "--dtype", "float32", "--no-packing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: str) -> Result:
        start = [] if "--resume" in arguments else ["--base", str(base.path), *recipe]
        monkeypatch.setattr(sys, "argv", ["medmind-train", "qlora", *start, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)

    return run
