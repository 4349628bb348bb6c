"""CPU and card agree. Needs a CUDA card: pytest -m gpu tests/train/qlora/test_devices.py"""

import json
from pathlib import Path

import pytest


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.gpu
@pytest.mark.parametrize("packing", ["--packing", "--no-packing"])
def test_same_config_gives_the_same_losses_on_cpu_and_card(qlora, small, tmp_path: Path, packing: str):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA card")
    arguments = small("--max-steps", "20", "--dtype", "float32", "--optimizer", "adamw", packing, "--lr", "1e-3")
    for device in ("cpu", "cuda"):
        result = qlora(*arguments, "--device", device, "--name", device)
        assert result.code == 0, result.err
    on_cpu, on_card = losses(tmp_path / "runs" / "cpu"), losses(tmp_path / "runs" / "cuda")
    assert len(on_cpu) == len(on_card) == 20
    assert on_cpu[-1] < on_cpu[0], "nothing was learned: the curves would agree whatever was computed"
    assert max(abs(one - other) for one, other in zip(on_cpu, on_card, strict=True)) < 1e-3
