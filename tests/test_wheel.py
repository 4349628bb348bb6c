"""What is installed from a wheel: the embedded models are in it, once, and work from a folder that nobody writes to."""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from medmind import digests, embedded

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="needs the build backend: pip install hatchling")
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True, timeout=300)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked where nothing can be written."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for path in (site, *site.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return site


def test_every_file_is_in_it_once_and_nothing_that_is_not_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        contents = {name: archive.read(name) for name in names if name.startswith("medmind/embedded/")}
    assert max(Counter(names).values()) == 1
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"medmind", "medmind_train", "medmind_convert", "medmind_runtime", "medmind_benchmarks"}
    assert f"medmind/embedded/{digests.FILE}" in contents
    for path in embedded.FOLDER.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert contents[f"medmind/{path.relative_to(embedded.FOLDER.parent).as_posix()}"] == path.read_bytes()
    large = Counter(content for content in contents.values() if len(content) > 1000)
    assert max(large.values()) == 1  # no picture or weight under two names


def test_the_installed_run_converts_and_answers(installed: Path, tmp_path: Path) -> None:
    def command(module: str, *arguments: str) -> str:
        code = f"import medmind; from {module}.cli import main; print(medmind.__file__); main()"
        environment = {
            **os.environ,
            "PYTHONPATH": str(installed),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        where, _, rest = done.stdout.partition("\n")
        assert Path(where).is_relative_to(installed)
        return rest

    assert "runs/medmind-tiny/medmind-tiny.q8_0.gguf" in command("medmind_convert", "gguf", "q8_0", embedded.TUNED)
    assert command("medmind_runtime", "-p", "What is asthma?", "--max-tokens", "8").strip()
