"""Bits per byte by source, and the two optimizers."""

import json
import math
from pathlib import Path

import pytest
import torch

from medmind_train.pretrain import model as shapes
from medmind_train.pretrain import tokenfile, validation
from medmind_train.pretrain.config import PretrainConfig
from medmind_train.pretrain.optimizers import Optimizers
from medmind_train.pretrain.tokenizer import train_tokenizer

TINY = PretrainConfig(hidden=32, ffn=64, layers=2, heads=4, kv_heads=2, positions=64, context=16, micro_batch=2)
LINES = [
    {"source": source, "text": f"{word} number {number} rests in the {place}."}
    for number in range(40)
    for source, word, place in (("books", "A heron", "reeds"), ("letters", "Dear aunt, the boat", "bay"))
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tokenfile.TokenFile:
    folder = tmp_path_factory.mktemp("corpus")
    file = folder / "text.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES), encoding="utf-8")
    train_tokenizer((line["text"] for line in LINES), 310, folder)
    return tokenfile.build([file], folder / "tokenizer.model", folder / "tokens", 0.3, None)


def test_bits_per_byte_are_the_summed_losses_over_the_bytes_whole_and_by_source(tokens: tokenfile.TokenFile):
    model = shapes.build_model(TINY, 310)
    found = validation.measure(model, tokens, TINY)
    held = tokens.validation()
    assert found.whole.bytes == tokens.validation_bytes == sum(held.bytes)
    assert found.whole.documents == tokens.validation_documents
    assert set(found.sources) == {"books", "letters"}
    parts = found.sources.values()
    assert sum(part.bytes for part in parts) == found.whole.bytes
    total = sum(part.bits_per_byte * part.bytes for part in parts)
    assert total / found.whole.bytes == pytest.approx(found.whole.bits_per_byte)
    # An untrained model finds every piece about as likely, whatever its source.
    expected = math.log2(310) * (tokens.validation_tokens - tokens.validation_documents) / found.whole.bytes
    assert found.whole.bits_per_byte == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_optimizer_goes_on_from_what_it_saved_bit_by_bit(name: str, tmp_path: Path):
    config = PretrainConfig(**{**vars(TINY), "optimizer": name})
    device = torch.device("cpu")

    def started():
        model = shapes.build_model(config, 310)
        return model, Optimizers(model, config, device)

    def step(model, optimizers, number: int) -> None:
        ids = torch.arange(4, 20) + number
        model(input_ids=ids[None], labels=ids[None], bounds=torch.tensor([0, 16]), longest=16).loss.backward()
        optimizers.step(0.5)

    model, optimizers = started()
    for number in range(2):
        step(model, optimizers, number)
    optimizers.save(tmp_path)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    step(model, optimizers, 2)
    other, again = started()
    other.load_state_dict(weights)
    again.load(tmp_path, device)
    step(other, again, 2)
    moved = [not torch.equal(weights[key], value) for key, value in model.state_dict().items()]
    assert all(moved)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_muon_moves_a_matrix_by_an_orthogonal_update_of_adamws_size():
    config = PretrainConfig(**{**vars(TINY), "optimizer": "muon", "weight_decay": 0.0})
    model = shapes.build_model(config, 310)
    matrix = model.model.layers[0].mlp.up_proj.weight
    before = matrix.detach().clone()
    ids = torch.arange(4, 68)
    model(input_ids=ids[None], labels=ids[None], bounds=torch.tensor([0, 64]), longest=64).loss.backward()
    gradient = torch.linalg.svdvals(matrix.grad)
    Optimizers(model, config, torch.device("cpu")).step(1.0)
    update = torch.linalg.svdvals(matrix.detach() - before)
    assert gradient[16] < 0.4 * gradient[0] and update[16] > 0.5 * update[0]
    size = float((matrix.detach() - before).square().mean().sqrt())
    assert size == pytest.approx(0.2 * config.muon_lr, rel=0.3)
