"""Bundles: wheels made of what is installed, and a folder that installs and answers where there is no network."""

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medmind.errors import MedmindError
from medmind_runtime import bundle
from medmind_runtime.bundle import wheels

from .conftest import one_line

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_what_the_runtime_needs_is_found_and_nothing_of_the_training() -> None:
    names = {package.name.lower().replace("_", "-") for package in wheels.needed("medmind", "runtime")}
    assert {"medmind", "llama-cpp-python", "numpy", "typer", "prompt-toolkit", "wcwidth", "rich"} <= names
    assert not {"torch", "transformers", "peft", "bitsandbytes"} & names
    with pytest.raises(MedmindError, match="nowhere is not installed"):
        wheels.needed("nowhere", "runtime")


def test_a_wheel_made_again_has_its_files_and_a_record_of_them(tmp_path: Path) -> None:
    package = next(one for one in wheels.needed("medmind", "runtime") if one.name == "mdurl")
    path = wheels.pack(package, tmp_path)
    assert path.name == f"mdurl-{package.version}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
        assert {row[0] for row in rows} == names
        for name, digest, size in rows:
            if name != record:
                data = archive.read(name)
                found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, int(size)) == (f"sha256={found}", len(data))
    assert any(name.endswith("mdurl/__init__.py") for name in names)
    assert not any(name.endswith(".pyc") or name.endswith("INSTALLER") for name in names)
    again = tmp_path / "again"
    again.mkdir()
    assert wheels.pack(package, again).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("there", "--model", "tiny.gguf"), "there exists already"),
        (("new", "--model", "none.gguf"), "there is no model none.gguf"),
        (("new", "--model", "cut.gguf"), "cut.gguf is cut off"),
        (("new", "--model", "tiny.gguf", "--library", "tiny.gguf"), "tiny.gguf is no library"),
        (("new", "--model", "a b.gguf"), "the name a b.gguf is not plain enough"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run_chat: Run, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    data = model.read_bytes()
    for name, content in (("tiny.gguf", data), ("a b.gguf", data), ("cut.gguf", data[: len(data) // 2])):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = run_chat("bundle", *arguments)
    assert done.returncode == 1
    assert message in one_line(done.stderr)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_no_bundle_is_not_replaced(run_chat: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.txt").write_text("precious")
    done = run_chat("bundle", "thesis", "--force", "--model", model)
    assert done.returncode == 1
    assert "thesis is a folder and no bundle" in one_line(done.stderr)
    assert (tmp_path / "thesis" / "one.txt").read_text() == "precious"


@pytest.fixture
def small_bundle(tmp_path: Path) -> Callable[[], "subprocess.CompletedProcess[str]"]:
    """A bundle of one empty wheel, and its script with a Python that cannot make an environment."""
    folder, python = tmp_path / "room", tmp_path / "python"
    (folder / "wheels").mkdir(parents=True)
    for name in ("tiny.gguf", "wheels/rich-1.0-py3-none-any.whl"):
        (folder / name).write_bytes(b"")
    bundle._script(folder / "install.sh", bundle.Contents(folder / "tiny.gguf", None, "runtime", ()))
    bundle._sums(folder)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo {version}\n', encoding="utf-8")
    python.chmod(0o755)

    def install() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", folder / "install.sh", tmp_path / "new"],
            env={**os.environ, "PYTHON": str(python)},
            capture_output=True,
            text=True,
            check=False,
        )

    return install


@pytest.mark.skipif(os.name == "nt" or not shutil.which("sha256sum"), reason="the script is for a shell")
@pytest.mark.parametrize("name", ["wheels/rich-2.0-py3-none-any.whl", "wheels/more/a b.whl", "wheels/.hidden"])
def test_a_wheel_that_the_bundle_did_not_have_is_named_and_nothing_installed(
    small_bundle: Callable[[], "subprocess.CompletedProcess[str]"], tmp_path: Path, name: str
) -> None:
    room = tmp_path / "room"
    (room / "desktop.ini").write_bytes(b"")  # what a stick's file system leaves beside a bundle
    assert "error: no environment could be made" in small_bundle().stderr, "all that it looks at is right"
    (room / name).parent.mkdir(exist_ok=True)
    (room / name).write_bytes(b"")
    refused = small_bundle()
    assert refused.returncode == 1
    assert f"error: {name} does not belong to this bundle; remove it" in one_line(refused.stderr.encode())
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_it_installs_and_answers_where_there_is_no_network(run_chat: Run, model: Path, tmp_path: Path) -> None:
    assert shutil.which("unshare"), "unshare is not installed"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "answer": "the is in the ing", "source": "A", "source_url": ""}\n')
    assert run_chat("index", "rows.jsonl", "-o", "a.library").returncode == 0
    done = run_chat("bundle", "out", "--model", model, "--library", "a.library")
    assert done.returncode == 0, done.stderr
    closed = ["unshare", "--net", "--map-root-user"]
    script = ["sh", str(tmp_path / "out" / "install.sh"), str(tmp_path / "installed")]
    settings = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(tmp_path)}

    def install() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*closed, *script], env=settings, capture_output=True, text=True, check=False)

    wheel = next((tmp_path / "out" / "wheels").glob("rich-*.whl"))
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = install()
    assert damaged.returncode == 1
    assert "a file of this bundle is damaged" in damaged.stderr
    assert not (tmp_path / "installed").exists()
    wheel.write_bytes(whole)
    done_there = install()
    assert done_there.returncode == 0, done_there.stderr
    chat = [str(tmp_path / "installed" / "chat"), "--prompt", "the ing", "--max-tokens", "5"]
    said = subprocess.run([*closed, *chat], env=settings, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip()
    found = subprocess.run([tmp_path / "installed" / "bin" / "pip", "list"], capture_output=True, text=True, check=True)
    assert not re.search(r"^(torch|transformers) ", found.stdout, re.MULTILINE)
    assert "exists already" in install().stderr
