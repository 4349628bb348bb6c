"""libggml's products and roundings against torch's, bit for bit: PEFT's merge is the contract."""

from collections.abc import Iterator

import numpy as np
import pytest

from medmind_convert import ggml


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes with one thread: with several it sums products as narrow as 31 columns in another order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("rows", "rank", "columns"),
    [
        (96, 16, 4096),
        (33, 1, 64),
        (7, 5, 31),
        (256, 64, 96),
        pytest.param(1024, 16, 4096, marks=pytest.mark.slow),
        pytest.param(4096, 16, 14336, marks=pytest.mark.slow),
    ],
)
def test_the_outer_product_is_torchs_bit_for_bit(rows: int, rank: int, columns: int):
    import torch

    rng = np.random.default_rng(rows)
    a = rng.normal(size=(rank, columns)).astype(np.float32)
    b = rng.normal(size=(rows, rank)).astype(np.float32)
    expected = (torch.from_numpy(b) @ torch.from_numpy(a)).numpy()
    assert np.array_equal(ggml.outer(a, b).view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(("kind", "name"), [("BF16", "bfloat16"), ("F16", "float16")])
def test_sixteen_bit_types_round_and_widen_as_torch_does(kind: str, name: str):
    """Every value of the type there and back, and the halfway cases between neighbours, which go to the even one."""
    import torch

    stored = np.arange(1 << 16, dtype=np.uint16)
    torch_type = getattr(torch, name)
    wide = torch.from_numpy(stored.view(np.int16)).view(torch_type).float().numpy()
    finite = np.isfinite(wide)
    given = ggml.widen(stored.view("<f2") if kind == "F16" else stored, kind)
    assert np.array_equal(given[finite].view(np.uint32), wide[finite].view(np.uint32))
    ordered = np.unique(wide[finite])
    halfway = ((ordered[1:].astype(np.float64) + ordered[:-1]) / 2).astype(np.float32)
    values = np.concatenate([wide[finite], halfway])
    expected = torch.from_numpy(values).to(torch_type).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(ggml.narrow(values, kind).view(np.uint16), expected)
