"""The fused step against transformers, PEFT and autograd: loss, gradients, scores, whatever lies where."""

from collections.abc import Callable

import pytest

pytest.importorskip("torch")
import torch

from medmind.base import Base
from medmind.errors import MedmindError
from medmind_train import inputs, qlora_config
from medmind_train import model as models
from medmind_train.batches import Batch, collate
from medmind_train.examples import Example
from medmind_train.fused import build
from medmind_train.fused.decoder import Decoder
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.step import FusedStep
from medmind_train.hardware import Hardware
from medmind_train.micro_batch import MicroBatch
from medmind_train.passes import ReferencePasses
from medmind_train.qlora_config import QloraConfig

LAYERS = 5
PLACEMENTS = {
    "all on the card": Placement((Keep.ALL,) * LAYERS),
    "lean": Placement.lean(LAYERS),
    "streamed": Placement.lean(LAYERS, stream=True),
    "mixed": Placement((Keep.ALL, Keep.HOST, Keep.CARD, Keep.HOST, Keep.ALL), streamed=3),
}
SETTINGS = {
    "every layer": {},
    "some layers, an odd rank": {"targets": "q_proj,v_proj,up_proj", "rank": 5},
    "a rank and an alpha of their own": {"rank_pattern": {"down_proj": 24}, "alpha_pattern": {"k_proj": 3.0}},
    "rsLoRA": {"rslora": True},
}


def config(**settings) -> QloraConfig:
    return QloraConfig(
        **{"base": "medmind-base", "batch": 2, "context": 128, "rank": 8, "optimizer": "adamw", **settings}
    )


def shaken(model):
    """An adapter as after some training: B starts at 0, and A's gradient with it."""
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in models.trainable(model):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=source).to(parameter.device))
    return model


def batch(lengths=((30, 50, 40), (100, 20)), prompt: int = 3) -> Batch:
    source = torch.Generator().manual_seed(5)
    rows = [
        [
            Example(
                f"{at}.{place}",
                tuple(torch.randint(3, 3000, (size,), generator=source).tolist()),
                max(size // prompt, 1),
                True,
            )
            for place, size in enumerate(sizes)
        ]
        for at, sizes in enumerate(lengths)
    ]
    return collate(rows, 0, "cpu", shape=(2, 128))


@pytest.fixture
def fused(small_base: Base) -> Callable[..., tuple[object, FusedStep]]:
    """A model with its fused step."""

    def make(
        settings: QloraConfig, placement: Placement, device: str = "cpu", dtype: str = "float32"
    ) -> tuple[object, FusedStep]:
        model, step = build.build(small_base, settings, device=device, dtype=dtype, placement=placement)
        return shaken(model), step

    return make


@pytest.fixture
def plain(small_base: Base) -> Callable[[QloraConfig], ReferencePasses]:
    """The same model on the plain path."""

    def make(settings: QloraConfig) -> ReferencePasses:
        model = models.add_adapter(
            models.load_base(small_base, "cpu", "float32"),
            small_base,
            targets=settings.targets,
            rank=settings.rank,
            alpha=settings.alpha,
            dropout=0.0,
            checkpointing=False,
            seed=settings.seed,
            rslora=settings.rslora,
            rank_pattern=settings.rank_pattern,
            alpha_pattern=settings.alpha_pattern,
        )
        return ReferencePasses(shaken(model), device="cpu", dtype="float32")

    return make


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: one.grad.cpu().clone() for name, one in model.named_parameters() if one.requires_grad}


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_loss_and_gradients_are_those_of_the_plain_path(settings, fused, plain):
    passes = plain(config(**settings))
    loss = passes.add_gradient(batch(), 77.0)
    model, step = fused(config(**settings), PLACEMENTS["lean"])
    assert float(step.add_gradient(batch(), 77.0)) == pytest.approx(float(loss), rel=1e-6)
    assert distance(gradients(model), gradients(passes.model)) < 1e-5
    ours, theirs = step.scores(batch(), likeliest=True), passes.scores(batch(), likeliest=True)
    assert torch.allclose(ours.nll, theirs.nll, atol=1e-4)
    assert torch.equal(ours.owners, theirs.owners) and torch.equal(ours.first, theirs.first)


@pytest.mark.parametrize("name", [name for name in PLACEMENTS if name != "lean"])
def test_where_things_lie_changes_nothing(name: str, fused):
    (lean, first), (other, second) = fused(config(), PLACEMENTS["lean"]), fused(config(), PLACEMENTS[name])
    for _ in range(2):  # the second pass finds what the first one left
        assert torch.equal(first.add_gradient(batch(), 70.0), second.add_gradient(batch(), 70.0))
    assert distance(gradients(other), gradients(lean)) == 0
    assert torch.equal(first.scores(batch()).nll, second.scores(batch()).nll)


def test_memory_that_is_full_makes_it_keep_less_and_the_gradient_is_the_same(monkeypatch, fused):
    whole = batch()
    rows = [[Example("0", (3, 5, 7, 11, 13, 17), 2, True)], [Example("1", (19, 23, 29, 31), 1, True)]]
    (model, step), (other, roomy) = fused(config(), PLACEMENTS["mixed"]), fused(config(), PLACEMENTS["mixed"])
    real, sizes = Decoder.run, []

    def full(self, inputs):
        sizes.append(len(inputs.ids))
        real(self, inputs)
        if self is step._decoder and (len(inputs.ids) > 128 or Keep.ALL in self.placement.kept):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Decoder, "run", full)
    micro, expected = (MicroBatch(one, 2, pad=0, device="cpu", length=128) for one in (step, roomy))
    assert micro.gradient(rows, stop=bool) == (pytest.approx(expected.gradient(rows, stop=bool)[0], rel=1e-5), 2 * 128)
    assert sizes == [256, 128, 128, 128, 256]
    assert distance(gradients(model), gradients(other)) < 1e-5
    assert ((decoder := step._decoder).placement.kept, decoder.placement.streamed) == ((Keep.HOST,) * LAYERS, 3)
    assert (
        decoder.tokens == 128 and decoder._parking.keys() == {128} and "fewer rows" not in (told := micro.news() or "")
    )
    assert "with 2 rows a pass" in told and micro.news() is None
    assert whole.ids.shape == (2, 128) and torch.isfinite(step.scores(whole).nll).all()
    _, again = fused(config(), PLACEMENTS["mixed"])
    MicroBatch(again, 2, pad=0, device="cpu", length=128).recall(micro.state())
    assert (again._decoder.placement, again._decoder.tokens) == (decoder.placement, 128) and not step.leaner()


@pytest.mark.gpu
@pytest.mark.parametrize("name", PLACEMENTS)
def test_graphs_on_a_card_give_what_each_kernel_by_itself_gives(name: str, fused, plain):
    """Also when their memory was given back in between; and both are near the plain path in fp32."""
    (captured, one), (each, other) = (fused(config(), PLACEMENTS[name], "cuda", "bfloat16") for _ in range(2))
    other._graphs = None
    exact = plain(config())
    for given in (batch(), batch(((128,), (60,)), prompt=200), batch(prompt=50), batch()):
        for step in (one, other, exact):
            step.zero_gradients()
        loss, again, right = (float(step.add_gradient(given, 70.0)) for step in (one, other, exact))
        assert loss == pytest.approx(again, rel=1e-3) and loss == pytest.approx(right, rel=1e-2)
        assert distance(gradients(captured), gradients(each)) < 0.02
        assert distance(gradients(captured), gradients(exact.model)) < 0.08
    assert one._graphs._captured
    scores, right = one.scores(batch()), exact.scores(batch())
    assert not one._graphs._captured and float((scores.nll.cpu() - right.nll).abs().mean()) < 0.1
    one.zero_gradients()
    assert float(one.add_gradient(batch(), 70.0)) == pytest.approx(float(other.add_gradient(batch(), 70.0)), rel=1e-3)


def test_gradients_add_up_and_are_forgotten_where_they_lie(fused):
    model, step = fused(config(), PLACEMENTS["lean"])
    step.add_gradient(batch(), 70.0)
    once = gradients(model)
    step.add_gradient(batch(), 70.0)
    assert distance({name: one / 2 for name, one in gradients(model).items()}, once) < 1e-6
    step.zero_gradients()
    assert all(not one.any() for one in gradients(model).values())


def test_peft_and_the_optimizer_see_the_same_numbers(fused):
    model, step = fused(config(), PLACEMENTS["lean"])
    step.add_gradient(batch(), 70.0)
    before = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
    (_, a), (_, b) = step.named_parameters()
    assert a.numel() + b.numel() == sum(one.numel() for one in before.values())
    torch.optim.SGD([a, b], lr=0.5).step()
    for name, one in model.named_parameters():
        if one.requires_grad:
            assert torch.allclose(one, before[name] - 0.5 * one.grad, atol=1e-6), name


@pytest.mark.parametrize(
    ("settings", "dtype", "why"),
    [
        ({"dropout": 0.1}, "float32", "dropout"),
        ({"dora": True}, "float32", "DoRA"),
        ({}, "float16", "float16"),
    ],
)
def test_what_it_cannot_do_is_said(settings, dtype, why, capsys, small_base):
    machine = Hardware("cpu", "a CPU", 1 << 34)
    assert build.refusal(small_base, config(), machine, "float32") is None
    with pytest.raises(MedmindError, match=f"(?s){why}.*"):
        inputs._kernels(small_base, config(kernels="fused", **settings), machine, dtype)
    assert inputs._kernels(small_base, config(**settings), machine, dtype) == "reference"
    card = Hardware("cuda", "an old card", 1 << 34, (7, 5))
    assert inputs._kernels(small_base, config(), card, "bfloat16") == "reference"
    assert "older than its kernels" in capsys.readouterr().err


def test_vram_is_a_size():
    assert qlora_config.vram(QloraConfig()) is None
    assert qlora_config.vram(QloraConfig(vram="6GB")) == 6 << 30
    with pytest.raises(MedmindError, match="--vram cannot be 'much'"):
        qlora_config.vram(QloraConfig(vram="much"))
