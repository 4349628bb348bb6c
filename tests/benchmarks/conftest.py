import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medmind.artifacts import HELDOUT

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model at f16, q8_0 and q2_k, and held-out rows."""
    import bench_model
    from bench_rows import heldout_rows, write_heldout

    folder = tmp_path_factory.mktemp("family")
    whole = bench_model.write(folder / "family.f16.gguf")
    bench_model.quantize(whole, folder / "family.q8_0.gguf", 7)
    bench_model.quantize(whole, folder / "family.q2_k.gguf", 10)
    write_heldout(folder / "heldout.jsonl", heldout_rows())
    return folder


@pytest.fixture
def run_folder(family: Path, tmp_path: Path) -> Path:
    """A run with an f16 and a q8_0, its own copy."""
    folder = tmp_path / "runs" / "night"
    folder.mkdir(parents=True)
    for name in ("family.f16.gguf", "family.q8_0.gguf", HELDOUT):
        shutil.copy(family / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def finished(family: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The report of the whole family, measured once, and what the command printed."""
    from bench_quants import SHORT, bench

    out = tmp_path_factory.mktemp("finished") / "report"
    return out, bench(family, "--out", out, *SHORT, "--repeats", "2", "--contexts", "128,512", pages=True)
