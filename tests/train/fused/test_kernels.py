"""The pieces of the fused step against bitsandbytes, transformers and autograd: plain, interpreted, and on a card."""

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

torch = pytest.importorskip("torch")
bnb = pytest.importorskip("bitsandbytes")
from medmind_train.fused import kernels  # noqa: E402
from medmind_train.fused.shape import Unsupported  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MARGIN = 24
SENTINEL = -3.0
DTYPES = [pytest.param(torch.float32, id="fp32"), pytest.param(torch.bfloat16, id="bf16")]


@pytest.fixture(params=["plain", "interpreted", pytest.param("card", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose the version under test; the device of its tensors."""
    if request.param == "card":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA card")
        assert kernels.available()
        return "cuda"
    if request.param == "interpreted":
        if not INTERPRETED:
            pytest.skip("in a process of its own: test_triton_versions_in_the_interpreter")
        from medmind_train.fused import triton_kernels

        monkeypatch.setattr(kernels, "_fast", lambda tensor: triton_kernels)
    return "cpu"


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_triton_versions_in_the_interpreter() -> None:
    """Triton reads the variable at its first import, so nothing of this process may have imported it before."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "interpreted", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


def matrix(device: str, rows: int, columns: int, dtype: Any, seed: int, scale: float = 1.0) -> Any:
    """Random, as a view of a wider buffer whose margin holds a sentinel."""
    buffer = torch.full((rows, columns + MARGIN), SENTINEL, dtype=dtype, device=device)
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    buffer[:, :columns] = values.to(device=device, dtype=dtype)
    return buffer[:, :columns]


def margin_is_clean(view: Any) -> bool:
    rows, columns = view.shape
    margin = view.as_strided((rows, MARGIN), view.stride(), view.storage_offset() + columns)
    return bool((margin == SENTINEL).all())


def close(got: Any, reference: Any) -> None:
    """Within the rounding of its type (Triton's interpreter cuts bf16 off instead of rounding), margin untouched."""
    if got.dim() == 2:
        assert margin_is_clean(got)
    tolerance = 2e-6 if got.dtype == torch.float32 else 2**-6 if INTERPRETED else 2**-8
    reference = reference.detach().float().cpu()
    spread = float(reference.abs().max())
    torch.testing.assert_close(got.float().cpu(), reference, rtol=tolerance, atol=max(tolerance, 2e-6) * spread / 4)


def quantized(rows: int, columns: int, device: str = "cpu", **options: Any) -> Any:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.02
    kind = {"quant_type": "nf4", "compress_statistics": True, **options}
    return bnb.nn.Params4bit(weight, requires_grad=False, **kind).to(device)


def theirs(parameter: Any, dtype: Any) -> Any:
    """What bitsandbytes makes of it, rounded as the interpreter rounds where that runs."""
    cut = INTERPRETED and dtype == torch.bfloat16
    parameter.quant_state.dtype = torch.float32 if cut else dtype
    values = bnb.functional.dequantize_4bit(parameter.data, parameter.quant_state)
    return (values.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16) if cut else values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [None, slice(3, 90)], ids=["all", "some"])
@pytest.mark.parametrize("shape", [(96, 384), (130, 320)], ids=str)
def test_dequantize_is_bitsandbytes_bit_for_bit(
    device: str, shape: tuple[int, int], rows: slice | None, dtype: Any
) -> None:
    parameter = quantized(*shape, device)
    reference = theirs(parameter, dtype)[rows or slice(None)]
    out = matrix(device, *reference.shape, dtype, seed=1)
    kernels.dequantize(kernels.Nf4.of(parameter), out, rows)
    assert torch.equal(out, reference)
    assert margin_is_clean(out)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((64, 128), {"quant_type": "fp4"}, "quantized to fp4"),
        ((64, 128), {"blocksize": 128}, "blocks of 128"),
        ((64, 128), {"compress_statistics": False}, "double quantization"),
        ((64, 128), {"quant_storage": torch.bfloat16}, r"packed in torch\.bfloat16"),
        ((128, 96), {}, r"\(128, 96\): its rows do not end"),
    ],
)
def test_another_quantization_is_refused(shape: tuple[int, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        kernels.Nf4.of(quantized(*shape, **options))


def test_a_weight_that_is_not_quantized_is_refused() -> None:
    with pytest.raises(Unsupported, match="not quantized"):
        kernels.Nf4.of(torch.nn.Parameter(torch.zeros(64, 64)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_is_that_of_transformers(device: str, dtype: Any) -> None:
    modeling = pytest.importorskip("transformers.models.mistral.modeling_mistral")
    x, out = matrix(device, 5, 320, dtype, seed=1), matrix(device, 5, 320, dtype, seed=2)
    norm = modeling.MistralRMSNorm(320, eps=1e-3)
    norm.weight.data = matrix("cpu", 1, 320, dtype, seed=3)[0]
    kernels.rms_norm(x, norm.weight.data.to(device), 1e-3, out)
    close(out, norm(x.cpu()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_backward_adds_the_gradient(device: str, dtype: Any) -> None:
    dy, x, residual = (matrix(device, 5, 320, dtype, seed) for seed in (1, 2, 3))
    weight = matrix(device, 1, 320, dtype, seed=4)[0]
    wide = x.float().clone().requires_grad_()
    (torch.nn.functional.rms_norm(wide, (320,), weight.float(), 1e-3) * dy.float()).sum().backward()
    reference = residual.float() + wide.grad
    kernels.rms_norm_backward(dy, x, weight, 1e-3, residual)
    close(residual, reference)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "head_dim"), [(6, 16), (11, 24)])
def test_rotate_is_that_of_transformers_and_turns_back(device: str, heads: int, head_dim: int, dtype: Any) -> None:
    modeling = pytest.importorskip("transformers.models.mistral.modeling_mistral")
    columns = (heads + 2) * head_dim
    qkv = matrix(device, 5, columns, dtype, seed=1)
    before = qkv.float().cpu()
    angles = torch.rand(5, head_dim // 2, generator=torch.Generator().manual_seed(2)).repeat(1, 2) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    q = before[:, : heads * head_dim].reshape(1, 5, heads, head_dim).transpose(1, 2)
    turned, _ = modeling.apply_rotary_pos_emb(q, q, cos.float()[None], sin.float()[None])
    kernels.rotate(qkv, cos.to(device), sin.to(device), heads, head_dim)
    close(qkv, torch.cat((turned[0].transpose(0, 1).flatten(1), before[:, heads * head_dim :]), 1))
    kernels.rotate(qkv, cos.to(device), sin.to(device), heads, head_dim, inverse=True)
    off = (qkv.float().cpu() - before).abs().max()
    assert off < (1e-5 if dtype == torch.float32 else 0.1)
    assert torch.equal(qkv[:, heads * head_dim :].float().cpu(), before[:, heads * head_dim :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu_and_its_backward(device: str, dtype: Any) -> None:
    gate, up, dh = (matrix(device, 3, 2100, dtype, seed, scale=2.0) for seed in (1, 2, 3))
    wide, factor = gate.float().clone().requires_grad_(), up.float().clone().requires_grad_()
    reference = torch.nn.functional.silu(wide) * factor
    reference.backward(dh.float())
    out = matrix(device, 3, 2100, dtype, seed=4)
    kernels.swiglu(gate, up, out)
    close(out, reference)
    kernels.swiglu_backward(gate, up, dh)
    close(gate, wide.grad)
    close(up, factor.grad)


def test_swiglu_may_write_over_its_gate(device: str) -> None:
    gate, up = (matrix(device, 3, 200, torch.float32, seed) for seed in (1, 2))
    reference = torch.nn.functional.silu(gate) * up
    kernels.swiglu(gate, up, gate)
    close(gate, reference)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocabulary", [100, 9001])
def test_cross_entropy_and_its_gradient(device: str, vocabulary: int, dtype: Any) -> None:
    logits = matrix(device, 6, vocabulary, dtype, seed=1, scale=3.0)
    targets = torch.tensor([0, 50, vocabulary - 1, int(logits[3].argmax()), 7, -100], device=device)
    scale = torch.tensor(0.25, device=device)
    nll, first = torch.full((6,), 9.0, device=device), torch.zeros(6, dtype=torch.bool, device=device)
    before, wide = logits.clone(), logits.float().clone().requires_grad_()
    reference = torch.nn.functional.cross_entropy(wide, targets, reduction="none")
    (reference.sum() * 0.25).backward()
    kernels.cross_entropy(logits, targets, scale, nll, first, gradient=False)
    assert torch.equal(logits, before)
    close(nll, reference)
    assert torch.equal(first, logits.argmax(-1) == targets)
    assert first[3]
    nll.fill_(9.0)
    kernels.cross_entropy(logits, targets, scale, nll, None, gradient=True)
    close(nll, reference)
    close(logits, wide.grad)


def test_of_equal_logits_the_first_is_the_likeliest(device: str) -> None:
    logits = torch.zeros(3, 40, device=device)
    logits[:, 7] = logits[:, 9] = 4.0
    nll, first = torch.empty(3, device=device), torch.empty(3, dtype=torch.bool, device=device)
    targets = torch.tensor([7, 9, 8], device=device)
    kernels.cross_entropy(logits, targets, torch.tensor(1.0, device=device), nll, first, gradient=False)
    assert first.tolist() == [True, False, False]


def test_logits_of_any_size_do_not_overflow(device: str) -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0], [-3e4, -3e4 - 1, float("-inf")]], device=device)
    nll = torch.empty(2, device=device)
    targets = torch.tensor([0, 1], device=device)
    kernels.cross_entropy(logits, targets, torch.tensor(1.0, device=device), nll, None, gradient=True)
    torch.testing.assert_close(nll.cpu(), torch.tensor([0.0, 1.3132617]))
    torch.testing.assert_close(logits.cpu(), torch.tensor([[0.0, 0, 0], [0.7310586, -0.7310586, 0]]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_embed_copies_rows_of_a_table_on_the_host(device: str, dtype: Any) -> None:
    table = torch.randn(50, 200).to(dtype)
    if device == "cuda":
        table = table.pin_memory()
    ids = torch.tensor([3, 49, 0, 3], device=device)
    out = matrix(device, 4, 200, dtype, seed=1)
    kernels.embed(ids, table, out)
    assert torch.equal(out.cpu(), table[ids.cpu()])
    assert margin_is_clean(out)


@pytest.mark.gpu
def test_a_cuda_graph_holds_them() -> None:
    """Everything once outside, then recorded, then replayed on other values of the same tensors."""
    parameter = quantized(128, 256, "cuda")
    x, out, base = (matrix("cuda", rows, 256, torch.bfloat16, rows) for rows in (8, 9, 128))
    out = out[:8]
    norm, weight = torch.ones(256, dtype=torch.bfloat16, device="cuda"), kernels.Nf4.of(parameter)
    nll, targets, scale = torch.empty(8, device="cuda"), torch.arange(8, device="cuda"), torch.ones((), device="cuda")

    def everything() -> None:
        kernels.rms_norm(x, norm, 1e-5, out)
        kernels.dequantize(weight, base)
        kernels.cross_entropy(out, targets, scale, nll, None, gradient=True)

    everything()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        everything()
    x.mul_(-1.5)
    graph.replay()
    got = out.clone(), nll.clone()
    everything()
    assert torch.equal(got[0], out)
    assert torch.equal(got[1], nll)
