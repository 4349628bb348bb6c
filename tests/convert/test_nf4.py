"""NF4 in numpy against bitsandbytes: the same levels, codes, scales and dequantized values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.functional import QuantState
from safetensors.torch import load_file
from tiny_bases import write_safetensors

from medmind_convert import nf4
from medmind_convert.weights import Dtype, open_tensors

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.005, 0.2, (rows, 1))
    return (rng.standard_t(4, (rows, columns)) * spread).astype(np.float32)


def nearest(scaled: torch.Tensor) -> tuple[torch.Tensor, QuantState]:
    """Scales as bitsandbytes' CUDA kernel quantizes them: to the nearest value, by the definition, in float64."""
    code = functional.create_dynamic_map()
    flat = torch.nn.functional.pad(scaled, (0, -len(scaled) % 256)).reshape(-1, 256)
    absmax = flat.abs().amax(1)
    ratio = (flat * (1 / absmax)[:, None]).reshape(-1)[: len(scaled)].double()
    codes = (ratio[:, None] - code.double()[None]).abs().argmin(1).to(torch.uint8)
    return codes, QuantState(absmax=absmax, code=code, blocksize=256, dtype=torch.float32)


def dequantized(path: Path, dtype: Dtype) -> np.ndarray:
    """The weight through bitsandbytes, but for the quantization of the scales: see `nearest`."""
    given = load_file(path)["w"].to(TORCH[dtype])
    packed, state = functional.quantize_4bit(given, blocksize=64, quant_type="nf4")
    state.offset = state.absmax.mean()
    state.absmax, state.state2 = nearest(state.absmax - state.offset)
    state.nested = True
    # As one row: bitsandbytes' kernel for CPUs with AVX-512 takes a block to end where a row ends.
    shape, state.shape = state.shape, torch.Size([1, given.numel()])
    return functional.dequantize_4bit(packed, state).reshape(shape).float().numpy()


def test_levels_and_the_map_of_scales_are_bitsandbytes_own():
    assert np.array_equal(nf4.LEVELS, functional.get_4bit_type("nf4", device="cpu").numpy())
    assert np.array_equal(nf4.dynamic_map(), functional.create_dynamic_map().numpy())


def test_scales_come_back_bit_for_bit_and_nearly_so_from_the_cpu_kernel():
    absmax = np.abs(weights(1, 256 * 9 + 40)[0])
    mean = nf4.mean(absmax)
    rest = torch.from_numpy(absmax - mean)
    found = nf4.scales(absmax)
    assert np.array_equal(found, functional.dequantize_blockwise(*nearest(rest)).numpy() + mean)
    by_kernel = functional.dequantize_blockwise(*functional.quantize_blockwise(rest, blocksize=256)).numpy() + mean
    assert np.mean(found != by_kernel) < 0.005


@pytest.mark.parametrize(
    ("rows", "columns", "stored", "dtype"),
    [
        (128, 256, "BF16", "BF16"),
        (96, 512, "F16", "BF16"),
        (64, 96, "BF16", "F32"),
        (130, 66, "F32", "F16"),
        (2048, 1024, "BF16", "BF16"),
    ],
)
def test_a_weight_dequantizes_to_bitsandbytes_bits(
    rows: int, columns: int, stored: str, dtype: Dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_safetensors(tmp_path / "w.safetensors", {"w": weights(rows, columns)}, stored)
    expected = dequantized(tmp_path / "w.safetensors", dtype)
    tensor = nf4.Nf4Tensor(open_tensors([tmp_path / "w.safetensors"])["w"], dtype)
    # torch's own sum of the scales, whose order is its secret; everything else is compared bit for bit
    monkeypatch.setattr(nf4, "mean", lambda absmax: torch.from_numpy(absmax).mean().numpy())

    assert np.array_equal(tensor.rows(slice(None)), expected)
    some = np.array([5, 3, 60, 61, 0])
    assert np.array_equal(tensor.rows(some), expected[some])
    assert np.array_equal(tensor.rows(slice(7, 40)), expected[7:40])


def test_whole_bitsandbytes_differs_in_few_weights_and_by_a_step_of_their_scale(tmp_path: Path):
    write_safetensors(tmp_path / "w.safetensors", {"w": weights(512, 512)}, "BF16")
    given = load_file(tmp_path / "w.safetensors")["w"]
    packed, state = functional.quantize_4bit(given, blocksize=64, quant_type="nf4", compress_statistics=True)
    expected = functional.dequantize_4bit(packed, state).float().numpy()
    found = nf4.Nf4Tensor(open_tensors([tmp_path / "w.safetensors"])["w"], "BF16").rows(slice(None))
    assert np.mean(found != expected) < 0.005
    np.testing.assert_allclose(found, expected, rtol=0.06)
    assert np.abs(expected - given.float().numpy()).mean() > 1e-3  # quantizing changed something
