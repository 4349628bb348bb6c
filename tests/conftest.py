"""How threads wait, Ctrl-C that is heard, and a small base where the embedded one is not the point, for all tests."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from medmind.base import EMBEDDED_NAME, EMBEDDED_PATH, Base

sys.path.insert(0, str(Path(__file__).parent))  # import-mode=importlib leaves it out

# The gguf package imports it where it is installed, half a second of every worker; a test needs its data alone, and
# medmind's users hardly have it.
sys.modules.setdefault("mistral_common", cast(ModuleType, None))

# Two of llama.cpp's threads that wait for one another do so busily, on the core that another worker computes on: before
# any library of OpenMP is loaded here, and for the processes that are started from here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell's `&` starts its programs deaf to Ctrl-C, and what they start; the tests that press it need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def make_small_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Base]:
    """Writes a Mistral of so many layers, 128 wide, with random weights: the embedded base's kind and tokenizer, a
    twentieth of its work. It bears that base's name, as its folder does.

    The weights are drawn wide enough that logits differ by several units and an adapter can learn.
    """

    def make(layers: int) -> Base:
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
            num_hidden_layers=layers,
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

    return make


@pytest.fixture(scope="session")
def small_base(make_small_base: Callable[[int], Base]) -> Base:
    """Of five layers, so that each way of keeping a layer has one."""
    return make_small_base(5)
