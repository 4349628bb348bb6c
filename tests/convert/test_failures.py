"""What fails in the middle of a conversion: one line, exit 1, and what is finished serves the next start."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medmind import console
from medmind_convert import ggml, one_pass
from medmind_convert.cli import app
from medmind_convert.partial import Partial
from medmind_convert.weights import Tensor

FILE = "trial.q8_0.gguf"
AFTER = 5
"""Tensors that are finished before something fails."""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command as `main` runs it: exit code, and what it said on standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        given = ["gguf", "q8_0", "runs/trial", "--threads", "1", "--no-cards", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["medmind-convert", *given])
        capfd.readouterr()
        handler = signal.getsignal(signal.SIGTERM)
        code = 0
        try:
            console.run(app)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
        return code, capfd.readouterr().err

    return run


@pytest.fixture
def run(make_run: Callable[..., Path], convert: Run) -> Path:
    """A run, and beside it as whole.gguf what it converts to."""
    folder = make_run()
    assert convert()[0] == 0
    (folder / FILE).rename(folder.parent / "whole.gguf")
    return folder


@contextmanager
def after_some(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Partial], object]) -> Iterator[None]:
    """Let something fail once some tensors are finished."""
    finish = Partial.finish

    def counted(partial: Partial, *arguments: Any) -> None:
        finish(partial, *arguments)
        if len(partial.done) == AFTER:
            fails(partial)

    with monkeypatch.context() as patched:
        patched.setattr(Partial, "finish", counted)
        yield


def raises(error: BaseException) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


def no_space(partial: Partial) -> None:
    """From now on the kernel refuses every byte of the file."""
    assert partial._file is not None
    os.dup2(os.open("/dev/full", os.O_RDWR), partial._file.fileno())


def no_space_for_the_journal(partial: Partial) -> None:
    os.dup2(os.open("/dev/full", os.O_RDWR), partial._journal.fileno())


def assert_goes_on(convert: Run, run: Path, code: int, errors: str, *said: str) -> None:
    """It was one line, nothing lies under the final name, and another start takes up what was finished."""
    (line,) = errors.splitlines()
    assert code == 1
    assert line.startswith("error: ")
    assert all(words in line for words in (*said, f"{AFTER} finished tensors are kept in", "start the same command"))
    assert not (run / FILE).exists()
    code, errors = convert()
    assert code == 0
    assert f"{AFTER} of 21 tensors are there already" in errors
    assert (run / FILE).read_bytes() == (run.parent / "whole.gguf").read_bytes()
    assert not list(run.glob(".*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("full", [no_space, no_space_for_the_journal])
def test_a_disk_that_is_full_in_the_middle(
    full: Callable[[Partial], None], run: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
):
    with after_some(monkeypatch, full):
        code, errors = convert()
    assert_goes_on(convert, run, code, errors, f"runs/trial/{FILE}: No space left on device", "free some disk space")


def test_a_file_system_that_takes_no_file_of_the_size(run: Path, convert: Run):
    """The kernel's own limit, met before the work: nothing stays."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code, errors = convert()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, len(errors.splitlines())) == (1, 1)
    assert f"runs/trial/{FILE}: File too large" in errors
    assert "raise the limit of file sizes (ulimit -f)" in errors
    assert "nothing is kept" in errors
    assert not [path for path in run.iterdir() if "gguf" in path.name]


def test_a_disk_that_cannot_be_read(run: Path, convert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stored = Tensor.stored

    def broken(tensor: Tensor, start: int, stop: int) -> Any:
        if "layers.1.mlp" in tensor.name and tensor.file.parent.name == "base":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(tensor.file))
        return stored(tensor, start, stop)

    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "stored", broken)
        patched.setattr(one_pass, "AHEAD", 0)
        code, errors = convert()
    (line,) = errors.splitlines()
    assert code == 1
    assert f"{tmp_path / 'base' / 'model.safetensors'}: Input/output error" in line
    assert "finished tensors are kept in runs/trial" in line
    code, errors = convert()
    assert "tensors are there already" in errors
    assert (run / FILE).read_bytes() == (run.parent / "whole.gguf").read_bytes()


def test_an_input_that_is_cut_while_it_is_read(
    run: Path, convert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Plain reads end in a line where a memory map would end the process; nothing stays, for the input is another."""
    base = tmp_path / "base" / "model.safetensors"
    whole = base.read_bytes()
    with after_some(monkeypatch, lambda partial: os.truncate(base, len(whole) // 3)):
        code, errors = convert()
    (line,) = errors.splitlines()
    assert code == 1
    assert "model.safetensors ends within" in line or "model.safetensors changed" in line
    assert not [path for path in run.iterdir() if "gguf" in path.name]
    base.write_bytes(whole)
    assert convert()[0] == 0
    assert (run / FILE).read_bytes() == (run.parent / "whole.gguf").read_bytes()


def test_an_input_that_changed_since_is_noticed(
    run: Path, convert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with after_some(monkeypatch, raises(KeyboardInterrupt())):
        code, errors = convert()
    assert code == 130
    assert f"{AFTER} finished tensors are kept in" in errors
    os.utime(tmp_path / "base" / "model.safetensors", (1, 1))
    code, errors = convert()
    assert code == 0
    assert f"was begun from other inputs or options: {FILE} starts anew" in " ".join(errors.split())
    assert "there already" not in errors
    assert (run / FILE).read_bytes() == (run.parent / "whole.gguf").read_bytes()
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("function", ["ggml_quantize_chunk", "ggml_graph_compute_with_ctx", "ggml_init"])
def test_a_libggml_that_fails(function: str, run: Path, convert: Run, monkeypatch: pytest.MonkeyPatch):
    base, cpu = ggml.libraries()
    library = cpu if "compute" in function else base
    answer = {"ggml_quantize_chunk": 0, "ggml_graph_compute_with_ctx": 1, "ggml_init": None}[function]

    def fails(*_: object) -> int | None:
        return answer

    monkeypatch.setattr(one_pass, "AHEAD", 0)
    with monkeypatch.context() as patched, after_some(monkeypatch, lambda _: patched.setattr(library, function, fails)):
        code, errors = convert()
    assert_goes_on(convert, run, code, errors, "libggml")


def test_a_memory_that_is_full(run: Path, convert: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(one_pass, "AHEAD", 0)
    full = raises(MemoryError())
    with monkeypatch.context() as patched, after_some(monkeypatch, lambda _: patched.setattr(ggml, "quantize", full)):
        code, errors = convert()
    assert_goes_on(convert, run, code, errors, "the memory is full")


@pytest.mark.parametrize("where", ["under a file", "in /proc", "in a folder that is not ours"])
def test_a_folder_that_cannot_be_written(where: str, run: Path, convert: Run, tmp_path: Path):
    if where == "under a file":
        (tmp_path / "file").touch()
        out = tmp_path / "file" / "out"
    elif where == "in /proc":
        out = Path("/proc/medmind")
        if not out.parent.exists():
            pytest.skip("there is no /proc")
    else:
        out = tmp_path / "locked"
        out.mkdir(mode=0o500)
        if os.access(out, os.W_OK):
            pytest.skip("root may write everywhere")
    before = set(tmp_path.rglob("*"))
    code, errors = convert("--out", out)
    assert (code, len(errors.splitlines())) == (1, 1)
    assert str(out) in errors
    assert set(tmp_path.rglob("*")) == before
