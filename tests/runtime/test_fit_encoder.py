"""scripts/fit_encoder.py: what is fitted to, and that llama.cpp computes from its file what PyTorch does."""

import random
from collections import Counter
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest
import repository_scripts

from medmind_runtime.safety.classifier import Encoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", "##a", "##b", "knee", "pain", "hurts", "my", "."]


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script."""
    monkeypatch.syspath_prepend(str(Path(repository_scripts.__file__).parents[1] / "scripts"))
    return repository_scripts.load("fit_encoder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published encoder of next to no size."""
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_every_text_is_seen_once_an_epoch(fit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"{'calm ' * (at % 7)}{at}", "kind": "everyday", "label": "none"} for at in range(2500)]
    monkeypatch.setattr(fit, "AMONG", 0)
    seen = Counter(text for texts, _ in fit.batches(rows, random.Random(1)) for text in texts)
    assert seen == Counter(row["text"] for row in rows)
    monkeypatch.setattr(fit, "AMONG", 1)
    joined = [text for texts, _ in fit.batches(rows, random.Random(1)) for text in texts]
    assert len(joined) == len(rows) and all("." in text for text in joined)


def test_llama_cpp_computes_what_pytorch_does(fit: ModuleType, folder: Path, tmp_path: Path) -> None:
    net = fit.Net.from_pretrained(folder, num_labels=4, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = tmp_path / "encoder.gguf"
    fit.write(made, tokenizer, net)
    known = {tensor.name: tensor for tensor in gguf.GGUFReader(made).tensors}
    for name, named in fit.tensors(net).items():  # as they were rounded
        numbers = gguf.quants.dequantize(known[named].data, known[named].tensor_type).astype(np.float32)
        net.state_dict()[name].copy_(torch.from_numpy(numbers.reshape(net.state_dict()[name].shape)))
    encoder = Encoder(made, head=False)
    told = {}
    for text in ("my knee hurts.", "pain", "caba pain jbb zzz", "[SEP] knee"):
        batch = tokenizer(text, return_tensors="pt", split_special_tokens=True)
        with torch.no_grad():
            told[text] = net.bert(**batch).last_hidden_state[0, 0]
        given = torch.tensor(encoder.outputs(text)[0])
        assert torch.nn.functional.cosine_similarity(told[text], given, dim=0) > 0.999, text
    assert torch.nn.functional.cosine_similarity(told["pain"], told["my knee hurts."], dim=0) < 0.99


def test_a_run_learns_what_tells_the_kinds_apart(
    fit: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BATCH": 8, "EPOCHS": 60, "RATE": 2e-3}.items():
        monkeypatch.setattr(fit, name, value)
    words = {"knee": "none", "pain": "emergency"}
    rows = [
        {"text": f"my {word} {letter}.", "kind": kind, "label": kind}
        for word, kind in words.items()
        for letter in "abcdefghij"
    ]
    net = fit.fitted(folder, rows, 0, "cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
        found = [fit.KINDS[place] for place in net(**batch).logits.argmax(1)]
    assert sum(kind == row["kind"] for kind, row in zip(found, rows, strict=True)) >= 18, "of 20"
