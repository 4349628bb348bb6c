"""Flat batches of documents: what predicts what, where positions restart, and that no document sees another."""

from itertools import islice

import numpy as np
import pytest
import torch

from medmind_train.pretrain import model as shapes
from medmind_train.pretrain.config import PretrainConfig
from medmind_train.pretrain.windows import IGNORED, document_windows, flat, training_windows

BOS = shapes.BOS
TINY = PretrainConfig(hidden=32, ffn=64, layers=2, heads=4, kv_heads=2, positions=64, context=16)


@pytest.fixture(scope="module")
def model():
    return shapes.build_model(TINY, 100)


def losses(model, batch):
    there = batch.to(torch.device("cpu"))
    with torch.inference_mode():
        return shapes.token_losses(model, there.ids, there.targets, there.positions, there.bounds, TINY.context)[0]


def corpus(lengths, seed=0):
    dice = np.random.default_rng(seed)
    return np.concatenate([[BOS, *dice.integers(4, 100, length - 2), 2] for length in lengths]).astype(np.uint16)


def test_positions_restart_and_nothing_predicts_the_beginning_of_a_document():
    batch = flat(np.array([[7, 8, BOS, 9, 2, BOS, 5], [6, 4, 4, 2, BOS, 3, 3]]), BOS)
    assert batch.ids.tolist() == [7, 8, BOS, 9, 2, BOS, 6, 4, 4, 2, BOS, 3]
    assert batch.targets.tolist() == [8, IGNORED, 9, 2, IGNORED, 5, 4, 4, 2, IGNORED, 3, 3]
    assert batch.positions.tolist() == [0, 1, 0, 1, 2, 0, 0, 1, 2, 3, 0, 1]
    assert batch.bounds[:6].tolist() == [0, 2, 5, 6, 10, 12] and set(batch.bounds[6:].tolist()) == {12}
    assert batch.predicted == 9
    assert batch.visible == pytest.approx((batch.positions + 1).mean())


def test_a_document_is_scored_the_same_alone_and_between_others(model):
    first, other = corpus([9]), corpus([6, 10], seed=1)
    alone = losses(model, flat(np.append(first, BOS)[None], BOS))
    beside = losses(model, flat(np.concatenate([other, first, [BOS]])[None], BOS))
    assert torch.allclose(alone, beside[len(other) :], atol=1e-5)
    assert alone[:-1].min() > 0 and alone[-1] == 0  # </s> predicts nothing


def test_the_gradient_is_that_of_the_plain_model_of_transformers(model):
    from transformers import MistralForCausalLM

    text = corpus([16])
    plain = MistralForCausalLM(model.config)
    plain.set_attn_implementation("eager")
    plain.load_state_dict(model.state_dict())
    ids = torch.from_numpy(text.astype(np.int64))[None]
    plain(input_ids=ids, labels=ids).loss.backward()
    there = flat(text[None], BOS).to(torch.device("cpu"))
    model.zero_grad()
    loss, _ = shapes.loss_sums(model, there.ids, there.targets, there.positions, there.bounds, 16, 0.0)
    (loss / there.predicted).backward()
    for (name, one), (_, other) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6), name
    model.zero_grad()


def test_a_pass_over_the_corpus_meets_every_window_once_and_a_resume_the_same_ones():
    ids = corpus([40] * 30)
    settings = {"context": 16, "batch": 4, "seed": 3, "bos": BOS}
    steps = (len(ids) - 17) // 16 // 4
    seen = [window.ids for window in islice(training_windows(ids, **settings, start=0), steps)]
    rows = np.concatenate(seen).reshape(-1, 16)
    assert len(np.unique(rows, axis=0)) == len(rows)
    later = next(training_windows(ids, **settings, start=5))
    assert np.array_equal(later.ids, seen[5])
    assert not np.array_equal(next(training_windows(ids, **{**settings, "seed": 4}, start=0)).ids, seen[0])


def test_validation_counts_every_token_but_the_first_of_each_document_once():
    lengths = [5, 40, 2, 17, 16, 33]
    ids = corpus(lengths)
    counted = np.zeros(len(lengths), dtype=int)
    for batch, owners in document_windows(ids, context=16, tokens=32, bos=BOS):
        assert len(batch.ids) == len(owners) == 32
        assert np.diff(batch.bounds).max() <= 16
        assert ((batch.targets != IGNORED) == (owners >= 0)).all()
        counted += np.bincount(owners[owners >= 0], minlength=len(lengths))
    assert counted.tolist() == [length - 1 for length in lengths]


def test_arithmetic_of_a_token_is_six_flop_a_weight_and_twelve_for_each_width_seen(model):
    matrices = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 100 * 32
    assert shapes.flops_per_token(model, 10.0) == 6 * matrices + 12 * 2 * 32 * 10
