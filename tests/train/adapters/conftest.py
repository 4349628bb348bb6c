"""What the adapter tests share: the embedded base in 4 bit with an adapter on it, and the command in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medmind.base import EMBEDDED_NAME, Base, resolve
from medmind_train import cli
from medmind_train import model as models


@pytest.fixture(scope="session")
def base() -> Base:
    return resolve(EMBEDDED_NAME, fetch=None)  # type: ignore[arg-type]


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
def qlora(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """Run `medmind-train qlora` on the embedded base in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: str) -> Result:
        start = [] if "--resume" in arguments else ["--base", "medmind-base", "--data", "sample", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["medmind-train", "qlora", *start, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)

    return run
