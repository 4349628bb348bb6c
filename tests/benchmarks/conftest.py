import sys
from pathlib import Path

import pytest

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
