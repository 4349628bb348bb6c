"""The fused step's memory model by itself: its arithmetic, its goals at a 7B, and what `choose` does with a limit."""

import re
from dataclasses import replace

import pytest

from medmind.errors import MedmindError
from medmind_train.fused import budget, lifetimes
from medmind_train.fused.lifetimes import WORKSPACE_HOPPER, Step, nf4_bytes
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import Shape

GIB = 1 << 30
MISTRAL = Shape(4096, 14336, 32, 32, 8, 128, 32768, tied=False, window=None, eps=1e-5, bias=False)
TINY = Shape(8, 24, 2, 4, 2, 4, 100, tied=True, window=None, eps=1e-5, bias=True)


def step(batch: int = 1, length: int = 2048, rank: int = 16, shape: Shape = MISTRAL, **more) -> Step:
    return Step(shape, dict.fromkeys(shape.linears, rank), batch, length, workspace=WORKSPACE_HOPPER, **more)


def peak(work: Step, placement: Placement) -> int:
    return budget.measure(work, placement).peak


def test_the_base_in_nf4_is_what_bitsandbytes_makes_of_it():
    # half a byte a weight, one for each 64, four for each 64 × 256, and 2 KiB of code books
    assert nf4_bytes(4096 * 14336) == 29_360_128 + 917_504 + 14_336 + 2048
    assert MISTRAL.layers * step().nf4_layer / GIB == pytest.approx(3.35, abs=0.005)
    assert step().trained == 41_943_040


def test_every_tensor_of_the_fullest_moment_of_a_tiny_model():
    # T = 32 rows: hidden 8, ffn 24, attention 16, keys 8, LoRA on down alone: 16 columns beside h, none elsewhere
    work = Step(TINY, {"down_proj": 3}, 2, 16, workspace=1000)
    live = budget.measure(work, Placement.lean(2)).phases["backward MLP"]
    trained = 2 * 3 * (8 + 24)
    assert live == {
        "base in NF4": 2 * sum(nf4_bytes(size) for size in (16 * 8, 8 * 8, 8 * 8, 8 * 16, 24 * 8, 24 * 8, 8 * 24)),
        "norms and biases": 2 * (2 * (16 + 16 + 16) + 8),
        "adapter": 4 * trained,
        "adapter gradients": 4 * trained,
        "optimizer state": round(2.03125 * trained),
        "inputs": 32 * (3 * 8 + 2 * 4 * 2),
        "attention statistics": 2 * 4 * 32 * 4,
        "residual gradient": 33 * 24 * 2,
        "cuBLAS workspace": 1000,
        "copies in flight": 32 * (8 + 16) * 2,
        "x_mid": 32 * 8 * 2,
        "n2": 32 * 8 * 2,
        "gate": 32 * 40 * 2,
        "up": 32 * 24 * 2,
        "h, then dh": 32 * 24 * 2 + 32 * 16 * 2,
        "dequantized weight": (8 + 16) * 24 * 2,
    }


def test_the_head_keeps_a_chunk_of_rows_whatever_the_batch():
    parts = [budget.measure(step(batch, 1024), Placement.lean(32)).phases["head"] for batch in (1, 4)]
    rows = 128 * 4096 * 2
    for live in parts:
        assert live["head for this pass"] == 32768 * 4096 * 2 and live["logits of a chunk"] == 128 * 32768 * 2
        assert live["rows of a chunk"] == live["rows normed, then their gradient"] == rows
        assert not {"x_last", "x_out", "supervised rows"} & live.keys()


@pytest.mark.parametrize("rank", [1, 16, 64, 128])
def test_loading_is_never_the_peak(rank: int):
    work = step(1, 512, rank)
    found = budget.measure(work, Placement.lean(32))
    loading = sum(found.phases["loading"].values())
    if rank >= 16:
        assert loading == 32 * work.nf4_layer + 65 * 4096 * 2 + 2 * 4 * work.trained
    assert loading < found.peak and found.peak_phase == "head"


def test_what_a_layer_keeps_is_counted_once():
    lean, kept = (
        budget.measure(step(), Placement((keep,) * 32, head_on_card=True)).phases["backward MLP"]
        for keep in (Keep.HOST, Keep.ALL)
    )
    assert kept["kept activations"] == 32 * step().kept(Keep.ALL)
    assert not {"x_mid", "gate", "up", "copies in flight"} & kept.keys() and {"x_mid", "gate", "up"} <= lean.keys()


def test_kept_activations_grow_forward_and_go_backward():
    """A layer that parks its inputs never meets what the layers behind it keep."""
    lean = Placement.lean(32)
    some = replace(lean, kept=(Keep.HOST,) * 30 + (Keep.ALL,) * 2)
    (before, phases), two = (budget.measure(step(), one).phases for one in (lean, some)), 2 * step().kept(Keep.ALL)
    for phase in ("forward MLP", "backward MLP"):
        assert sum(before[phase].values()) < sum(phases[phase].values()) < sum(before[phase].values()) + two
    assert phases["head"]["kept activations"] == two


@pytest.mark.parametrize(("batch", "length", "goal"), [(1, 1024, 4.05), (1, 2048, 4.20), (4, 1024, 4.80)])
def test_the_leanest_placement_meets_the_goals_at_a_7b(batch: int, length: int, goal: float):
    assert peak(step(batch, length), Placement.lean(32)) / GIB < goal
    assert peak(step(batch, length), Placement.lean(32, stream=True)) / GIB < 2.0


@pytest.mark.parametrize("gib", [1.25, 2, 3, 4, 4.2, 4.5, 5, 6, 8, 12])
@pytest.mark.parametrize("length", [1024, 2048])
def test_choose_spends_the_room_in_order_and_leaves_none_that_would_do(gib: float, length: int):
    work, limit = step(length=length), round(gib * GIB)
    placement = budget.choose(work, limit)
    assert peak(work, placement) <= limit
    kinds = [Keep.HOST, Keep.CARD, Keep.ALL]
    assert [kinds.index(keep) for keep in placement.kept] == sorted(kinds.index(keep) for keep in placement.kept)
    if placement.streamed:
        lean = replace(Placement.lean(32), streamed=placement.streamed - 1)
        assert peak(work, lean) > limit
    if not placement.head_on_card:
        lean = replace(Placement.lean(32), streamed=placement.streamed, head_on_card=True)
        assert peak(work, lean) > limit
    hosted, everything = placement.kept.count(Keep.HOST), placement.kept.count(Keep.ALL)
    if hosted:
        more = (Keep.HOST,) * (hosted - 1) + (Keep.CARD,) * (33 - hosted - everything) + (Keep.ALL,) * everything
        assert peak(work, replace(placement, kept=more)) > limit
    if everything < 32:
        more = (Keep.HOST,) * (31 - everything) + (Keep.ALL,) * (everything + 1)
        assert peak(work, replace(placement, kept=more)) > limit


def test_more_room_is_never_used_worse():
    work = step()
    work_saved = [
        (-found.streamed, found.head_on_card, found.kept.count(Keep.ALL))
        for found in (budget.choose(work, gib * GIB // 4) for gib in range(5, 48))
    ]
    assert work_saved == sorted(work_saved)
    assert work_saved[0][0] < 0 and work_saved[-1] == (0, True, 32)


def test_what_cannot_fit_is_refused_with_a_change_that_helps():
    work, limit = step(8, 4096), round(1.2 * GIB)
    with pytest.raises(MedmindError, match=r"8 × 4,096 tokens need at least .* GiB .* 1\.20 GiB may be used") as error:
        budget.choose(work, limit)
    found = re.fullmatch(r"--batch (\d+)(?: --context (\d+))? would fit", error.value.hint)
    assert found
    changed = replace(work, batch=int(found[1]), length=int(found[2] or work.length))
    assert budget.least(changed) <= limit < budget.least(replace(changed, length=2 * changed.length))
    budget.choose(changed, limit)
    with pytest.raises(MedmindError, match="smaller base or a larger card"):
        budget.choose(work, GIB // 4)


def test_ranks_of_each_layer():
    uniform = step(rank=8)
    listed = replace(uniform, ranks=[dict.fromkeys(MISTRAL.linears, 8)] * 32)
    assert budget.measure(uniform, Placement.lean(32)) == budget.measure(listed, Placement.lean(32))
    one = replace(uniform, ranks=[dict.fromkeys(MISTRAL.linears, 64)] + [{}] * 31)
    assert one.trained == 41_943_040 * 4 // 32
    assert one.columns("q_proj", "k_proj", "v_proj") == 192
    with pytest.raises(ValueError, match="31 layers for 32"):
        budget.measure(replace(uniform, ranks=[{}] * 31), Placement.lean(32))


def test_host_memory_by_what_it_is_for():
    work = step()
    lean = budget.measure(work, Placement.lean(32, stream=True))
    assert lean.host == {
        "embedding": GIB // 4,
        "head": GIB // 4,
        "parked activations": 32 * 3 * 2048 * 4096 * 2,
        "streamed layers in NF4": 32 * work.nf4_layer,
    }
    roomy = budget.measure(work, Placement((Keep.ALL,) * 32))
    assert roomy.host == {"embedding": GIB // 4}
    tied = budget.measure(step(shape=TINY, rank=1, length=64), Placement.lean(2))
    assert "head" not in tied.host


def test_lists_name_what_layers_keep_as_they_are_kept():
    """A misspelt name would be counted twice, and nothing else would show it."""
    names = set(lifetimes.KEPT[Keep.ALL])
    for lists in (*lifetimes.FORWARD.values(), *lifetimes.BACKWARD.values()):
        listed = {name for moment in lists(step(), Keep.HOST, Keep.HOST) for name in moment}
        assert {"x", "x_mid"} & listed and listed & names <= step().tensors.keys()
    assert names <= step().tensors.keys()
