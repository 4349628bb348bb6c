"""Perplexity through llama.cpp against transformers on the same 16-bit weights: an independent computation."""

import math
from pathlib import Path

import bench_model
import pytest

from medmind_benchmarks import examples, model_file, score, statistics, texts


def test_perplexity_agrees_with_transformers(family: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=bench_model.VOCABULARY,
        hidden_size=bench_model.WIDTH,
        intermediate_size=bench_model.FEED_FORWARD,
        num_hidden_layers=bench_model.LAYERS,
        num_attention_heads=bench_model.HEADS,
        num_key_value_heads=bench_model.KV_HEADS,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    model = transformers.MistralForCausalLM(config).eval()
    weights = {name: torch.from_numpy(values) for name, values in bench_model.weights().items()}
    model.load_state_dict(weights, strict=True)

    path, heldout = family / "family.f16.gguf", family / "heldout.jsonl"
    rows = examples.read_rows(heldout)
    with texts.speaker(model_file.read(path)) as spoken:
        text = texts.answers(spoken, rows, range(len(rows)), context=128, system_prompt="")
    texts.write(text, tmp_path / "text.json")
    request = score.Request("score", str(path), "f16", "", "", 0, str(tmp_path / "text.json"), 1)
    found = score.measure(request, lambda: None)

    total, count = 0.0, 0
    for example in (example for group in text.groups for example in group):
        ids = torch.tensor([example.tokens])
        with torch.no_grad():
            scores = model(ids).logits[0, :-1].double().log_softmax(-1)
        picked = scores.gather(1, ids[0, 1:, None])[example.start - 1 :, 0]
        total -= float(picked.sum())
        count += len(picked)
        assert example.cut or example.tokens[-1] == 2
    assert count == sum(found.tokens)
    assert text.cut > 0
    ours = statistics.perplexity(found.nll, found.tokens).value
    assert ours == pytest.approx(math.exp(total / count), rel=1e-3)
