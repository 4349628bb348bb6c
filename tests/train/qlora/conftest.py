"""What the QLoRA tests share: a small data file in our own words, and the command, in this process or in its own."""

import inspect
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from medmind.base import Base
from medmind_train import cli, curve, loop
from medmind_train.encoding import load_tokenizer

TOPICS = ("hay fever", "tension headache", "sunburn", "athlete's foot", "motion sickness", "ingrown nail")
QUESTIONS = {
    "symptoms": ("How does {} show?", "People with {} often notice it in the morning, and it fades within days."),
    "causes": ("Why do people get {}?", "Most often {} comes from something harmless in daily life."),
    "treatment": ("What helps against {}?", "Rest helps with {}. See a doctor if it gets worse."),
}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen rows on six topics."""
    path = tmp_path_factory.mktemp("data") / "small.jsonl"
    rows = [
        {"question": question.format(topic), "answer": answer.format(topic), "focus": topic, "question_type": kind}
        for topic in TOPICS
        for kind, (question, answer) in QUESTIONS.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small_base(make_small_base: Callable[[int], Base]) -> Base:
    """Of two layers: most of the time of these tests is spent in passes."""
    return make_small_base(2)


@pytest.fixture(scope="session")
def tokenizer(small_base: Base):
    return load_tokenizer(small_base.path, small_base.name)


@pytest.fixture(scope="session")
def small(data: Path, small_base: Base) -> Callable[..., list[str]]:
    """Arguments of a quick run, later ones winning."""

    def arguments(*more: str) -> list[str]:
        quick = {
            "--base": str(small_base.path),
            "--data": str(data),
            "--heldout-share": "0.3",
            "--context": "96",
            "--max-steps": "4",
            "--batch": "2",
            "--accumulate": "2",
            "--rank": "4",
            "--device": "cpu",
            "--lr": "1e-3",
            "--dtype": "float32",
            "--answer-rows": "0",
        }
        return [part for pair in quick.items() for part in pair] + ["--no-packing", *more]

    return arguments


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Exit code 1, nothing on stdout, and an error of one line that has all the words."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 1, self.err
        assert self.out == ""
        assert len(errors) == 1 and self.err.rstrip().endswith(errors[0]), self.err
        for word in words:
            assert word in errors[0]


def call(folder: Path, *arguments: str) -> Result:
    """`medmind-train qlora` in this process, in `folder`."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(sys, "argv", ["medmind-train", "qlora", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return Result(int(stop.value.code or 0), out.getvalue(), err.getvalue())


@contextmanager
def stopping(steps: int) -> Iterator[None]:
    """Interrupts a run when so many steps are done."""
    real = loop.Trainer._step

    def step(self, interrupt):
        interrupt.requested = self.position.step == steps
        return real(self, interrupt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", step)
        yield


def left_by(folder: Path, result: Result) -> Path:
    """The run directory that an interrupted command names."""
    assert result.code == 130 and "--resume" in result.err, result.err
    return folder / result.err.rstrip().rpartition("--resume ")[2]


@pytest.fixture
def pictures() -> Iterator[Callable[[], None]]:
    """Leaves out the loss curve, a fifth of a quick run, until it is called."""
    parameters = inspect.signature(curve.draw)

    def draw(path: Path, *given, **named) -> None:
        parameters.bind(path, *given, **named)
        path.touch()

    patch = pytest.MonkeyPatch()
    patch.setattr(curve, "draw", draw)
    yield patch.undo
    patch.undo()


@pytest.fixture
def qlora(pictures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run `medmind-train qlora` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(tmp_path, *arguments)


@pytest.fixture
def stopped_after(qlora, tmp_path: Path) -> Callable[..., Path]:
    """Run the command and interrupt it when so many steps are done; gives the run directory."""

    def run(steps: int, *arguments: str) -> Path:
        with stopping(steps):
            return left_by(tmp_path, qlora(*arguments))

    return run


@pytest.fixture(scope="session")
def _begun(small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    with stopping(2):
        return left_by(folder, call(folder, *small("--name", "begun", "--answer-rows", "1", "--context", "64")))


@pytest.fixture
def unfinished(_begun: Path, qlora, tmp_path: Path) -> Path:
    """A run that stopped after two steps."""
    return shutil.copytree(_begun, tmp_path / "runs" / "begun")


@pytest.fixture
def command() -> Callable[..., list[str]]:
    """The command line of `medmind-train qlora` for a process of its own."""
    return lambda *arguments: [sys.executable, "-c", "from medmind_train.cli import main; main()", "qlora", *arguments]


@pytest.fixture
def row() -> Callable[..., SimpleNamespace]:
    """A conversation of alternating turns, the user's first."""

    def make(identity: str, *turns: str, system: str = "") -> SimpleNamespace:
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        return SimpleNamespace(id=identity, messages=tuple(messages))

    return make


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No cache of the user is read or written, in this process and in those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        patch.setenv("MEDMIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
