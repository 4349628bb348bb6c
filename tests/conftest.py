"""A base for the tests in which the embedded one is not the point: its kind, its tokenizer, a twentieth of its work."""

import json
import shutil

import pytest

from medmind.base import EMBEDDED_NAME, EMBEDDED_PATH, Base


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A Mistral of five layers, 128 wide, with random weights; it bears the embedded base's name, as its folder does.

    The weights are drawn wide enough that logits differ by several units and an adapter can learn.
    """
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    folder = tmp_path_factory.mktemp("small") / EMBEDDED_NAME
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(EMBEDDED_PATH / name, folder / name)
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    shape = MistralConfig(
        vocab_size=len(words),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        sliding_window=None,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    torch.manual_seed(0)
    MistralForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    return Base(EMBEDDED_NAME, "local", folder)
