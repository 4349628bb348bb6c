"""Packed rows: how full they are, and that nothing in them sees anything else."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medmind.base import Base
from medmind_train import loss as losses
from medmind_train import model as models
from medmind_train.batches import collate, epoch_steps, real_tokens, supervised_tokens
from medmind_train.examples import Example
from medmind_train.gradient import backward
from medmind_train.loss import answer_nll, mixes_packed_rows
from medmind_train.packing import pack
from medmind_train.passes import ReferencePasses

SHARED = Path(__file__).parents[3].parent / "shared"
CONTEXT = 64


def lengths(number: int, longest: int) -> list[int]:
    source = random.Random(7)
    return [min(longest, 4 + int(source.lognormvariate(4.5, 1.0))) for _ in range(number)]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Lengths that share rows: 64, 40 + 24, 30 + 20 + 13 and a padded rest."""
    source = random.Random(3)
    return [
        Example(f"row {at}", tuple(source.randrange(3, 100) for _ in range(length)), 1 + at % 5, True)
        for at, length in enumerate((30, 64, 24, 13, 40, 20, 11))
    ]


@pytest.fixture(scope="module", params=["causal", "sliding window"])
def tiny(request):
    """A small Mistral in fp32, all of it trainable."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(5)
    config = MistralConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=None if request.param == "causal" else 16,
        initializer_range=0.3,
    )
    return MistralForCausalLM(config)


@pytest.fixture(scope="module")
def tuned(small_base: Base):
    """A base in NF4 with an adapter that does something."""
    settings = {"targets": "all-linear", "rank": 4, "alpha": 8.0, "dropout": 0.0, "checkpointing": False, "seed": 1}
    made = models.add_adapter(models.load_base(small_base, "cpu", "float32"), small_base, **settings)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in models.trainable(made):
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def packed_rows(examples: list[Example]) -> list[list[Example]]:
    ((*steps,),) = [epoch_steps([len(one.ids) for one in examples], effective=50, seed=1, epoch=0, capacity=CONTEXT)]
    return [[examples[index] for index in row] for step in steps for row in step]


def plain(model) -> ReferencePasses:
    return ReferencePasses(model, device="cpu", dtype="float32")


def gradient(model, rows, *, batch: int, length: int | None) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss, _ = backward(plain(model), rows, batch=batch, pad=0, length=length)
    return loss, torch.cat([one.grad.flatten() for one in models.trainable(model)])


def assert_packed_equals_unpacked(model, examples: list[Example]) -> None:
    rows = packed_rows(examples)
    assert max(map(len, rows)) > 1
    loss, packed = gradient(model, rows, batch=2, length=CONTEXT)
    alone_loss, alone = gradient(model, [[one] for one in examples], batch=1, length=None)
    assert abs(loss - alone_loss) / alone_loss < 1e-5
    assert alone.norm() > 0 and (packed - alone).norm() / alone.norm() < 1e-5


def test_every_example_is_in_one_row_and_no_row_is_too_full():
    sizes = lengths(500, 300)
    rows = pack(sizes, 300, range(500))
    assert sorted(index for row in rows for index in row) == list(range(500))
    assert all(sum(sizes[index] for index in row) <= 300 for row in rows)


def test_best_fit_takes_the_fullest_row_with_room():
    assert sorted(map(sorted, pack([6, 5, 4, 3, 2], 10, range(5)))) == [[0, 2], [1, 3, 4]]
    # The first row with room would be that of the 5; the 3 belongs to the 7, and so all fit into three rows.
    assert len(pack([7, 6, 5, 5, 4, 3], 10, range(6))) == 3


def test_example_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="12 tokens in rows of 10"):
        pack([12], 10, [0])


def test_rows_waste_little_and_their_number_does_not_hang_on_the_epoch():
    sizes = lengths(3000, 1024)
    counts = set()
    for epoch in range(3):
        steps = epoch_steps(sizes, effective=16, seed=4, epoch=epoch, capacity=1024)
        counts.add(sum(len(step) for step in steps))
    (count,) = counts
    assert 1 - sum(sizes) / (1024 * count) < 0.01


def test_packing_is_a_function_of_seed_and_epoch():
    sizes = lengths(300, 200)
    first = epoch_steps(sizes, effective=4, seed=5, epoch=0, capacity=256)
    assert first == epoch_steps(sizes, effective=4, seed=5, epoch=0, capacity=256)
    assert first != epoch_steps(sizes, effective=4, seed=5, epoch=1, capacity=256)
    assert first != epoch_steps(sizes, effective=4, seed=6, epoch=0, capacity=256)


def test_every_batch_has_the_same_shape_also_the_last_of_an_epoch(tiny, examples, monkeypatch):
    rows = packed_rows(examples)
    assert len(rows) % 3
    real, shapes = ReferencePasses.add_gradient, []

    def seen(self, batch, divisor):
        shapes.append(tuple(batch.ids.shape))
        return real(self, batch, divisor)

    monkeypatch.setattr(ReferencePasses, "add_gradient", seen)
    _, padded = backward(plain(tiny), rows, batch=3, pad=0, length=CONTEXT)
    assert shapes == [(3, CONTEXT)] * -(-len(rows) // 3) and padded == 3 * CONTEXT * len(shapes)


def test_positions_restart_and_owners_follow(examples):
    row = [examples[0], examples[5], examples[6]]
    batch = collate([row], 0, "cpu", shape=(2, CONTEXT))
    wanted = [*range(30), *range(20), *range(CONTEXT - 50)]
    assert batch.positions.tolist() == [wanted, list(range(CONTEXT))]
    assert batch.owners[0].tolist() == [0] * 30 + [1] * 20 + [2] * 11 + [-1] * 3
    assert batch.owners[1].eq(-1).all() and not batch.supervised[1].any()
    assert int(batch.supervised.sum()) == supervised_tokens([row]) and real_tokens([row]) == 61
    assert not batch.supervised[0, [0, 30, 50]].any()


def test_packed_logits_are_those_of_each_example_alone(tiny, examples):
    for row in packed_rows(examples):
        batch = collate([row], 0, "cpu", shape=(1, CONTEXT))
        with torch.no_grad():
            packed = tiny(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).logits[0]
            start = 0
            for example in row:
                alone = tiny(input_ids=torch.tensor([example.ids])).logits[0]
                assert alone.abs().max() > 0.1
                assert torch.allclose(packed[start : start + len(example.ids)], alone, atol=1e-5)
                start += len(example.ids)


def test_packed_gradient_is_that_of_the_examples_alone(tiny, examples):
    assert_packed_equals_unpacked(tiny, examples)


def test_packed_gradient_in_four_bit_with_gradient_checkpointing(tuned, examples):
    assert_packed_equals_unpacked(tuned.train(), examples)
    base = tuned.get_base_model()
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        assert_packed_equals_unpacked(tuned, examples)
    finally:
        base.gradient_checkpointing_disable()


def test_losses_go_to_the_example_they_belong_to(tiny, examples):
    row = [examples[4], examples[2]]
    with torch.no_grad():
        nll, owners = answer_nll(tiny, collate([row], 0, "cpu", shape=(1, CONTEXT)))
        for at, example in enumerate(row):
            alone, _ = answer_nll(tiny, collate([[example]], 0, "cpu"))
            assert torch.allclose(nll[owners == at], alone, atol=1e-5)


@pytest.mark.parametrize("mistake", ["plain causal attention", "positions that go on"])
def test_old_mistakes_are_told_apart(tiny, examples, monkeypatch, mistake: str):
    """What the comparison above must catch: examples that see the ones before them in their row."""
    real = collate

    def wrong(rows, pad, device, *, shape=None):
        batch = real(rows, pad, device, shape=shape)
        return replace(batch, positions=torch.arange(batch.ids.shape[1]).expand_as(batch.ids))

    if mistake == "positions that go on":
        monkeypatch.setattr("medmind_train.gradient.collate", wrong)
    else:
        monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda _: None)
    with pytest.raises(AssertionError):
        assert_packed_equals_unpacked(tiny, examples)


def test_model_that_mixes_packed_examples_is_found_out(tiny, tuned, monkeypatch):
    assert not mixes_packed_rows(tiny, "cpu", 100) and not mixes_packed_rows(tuned, "cpu", 4096)
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda _: None)
    assert mixes_packed_rows(tiny, "cpu", 100)


def test_model_that_mixes_packed_examples_is_refused(qlora, small, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda _: None)
    qlora(*small("--packing")).refused("medmind-base", "--no-packing")
    assert not any(tmp_path.iterdir())
    assert losses.answer_nll is answer_nll


def test_run_packs_and_reports_its_padding(qlora, small, tmp_path: Path):
    result = qlora(*small("--packing", "--name", "packed", "--epochs", "1", "--context", "128", "--json"))
    assert result.code == 0, result.err
    steps = [json.loads(line) for line in (tmp_path / "runs/packed/metrics.jsonl").read_text().splitlines()]
    results = json.loads(result.out)["results"]
    tokens, padded = (
        sum(line["tokens"] for line in steps),
        sum(line["tokens"] / (1 - line["padding"]) for line in steps),
    )
    assert results["padding"] == pytest.approx(1 - tokens / padded, abs=1e-3)
    assert max(line["examples"] for line in steps) > 4, "no row holds more than one example"
    assert "padding" in (tmp_path / "runs/packed/report.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (SHARED / "medquad" / "medquad.jsonl.zst").is_file(), reason="MedQuAD is not on this machine")
@pytest.mark.parametrize("context", [1024, 2048])
def test_padding_on_medquad_is_below_three_percent(tokenizer, context: int):
    from medmind_train.data.files import open_text

    with open_text(SHARED / "medquad" / "medquad.jsonl.zst") as file:
        texts = [line for at, line in enumerate(file) if at % 12 == 0]
    records = [json.loads(text) for text in texts]
    batch = tokenizer([f"{one['question']}{one['answer']}" for one in records], add_special_tokens=False)
    sizes = [min(context, len(ids) + 4) for ids in batch["input_ids"]]
    steps = epoch_steps(sizes, effective=16, seed=1, epoch=0, capacity=context)
    assert len(sizes) > 1000
    assert 1 - sum(sizes) / (context * sum(len(step) for step in steps)) < 0.03
