"""Fixtures of the convert tests. The builders behind them are in tiny_bases.py, importable by its name."""

import json
import shutil
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # import-mode=importlib leaves both out
sys.path.insert(0, str(Path(__file__).parent))

from tiny_bases import MISTRAL_TEMPLATE, TEMPLATE, WORDS, Shape, base_tensors, write_base, write_run


@pytest.fixture(scope="session")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a SentencePiece-BPE tokenizer.model of 384 tokens and its tokenizer_config.json."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("spm")
    text = folder / "text.txt"
    text.write_text("\n".join(WORDS[i : i + 70] for i in range(0, len(WORDS), 35)), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.Train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=380, model_type="bpe", byte_fallback=True,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
        control_symbols="[INST],[/INST]", pad_id=3, minloglevel=2,
    )  # fmt: skip
    config = {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "add_bos_token": True, "add_eos_token": False, "legacy": False, "add_prefix_space": False,
        "chat_template": TEMPLATE,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def make_base(tmp_path: Path, spm: Path) -> Callable[..., Path]:
    """Writes a base: make_base(name="base", tensors=None, **dimensions)."""

    def make(name: str = "base", tensors: dict[str, np.ndarray] | None = None, **dimensions: Any) -> Path:
        return write_base(tmp_path / name, Shape(**dimensions), spm, tensors)

    return make


@pytest.fixture
def make_run(tmp_path: Path, make_base: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a base and a run over it: make_run(name="trial", heldout=None, **dimensions)."""

    def make(name: str = "trial", heldout: list[dict[str, Any]] | None = None, **dimensions: Any) -> Path:
        return write_run(tmp_path / "runs" / name, make_base(**dimensions), Shape(**dimensions), heldout=heldout)

    return make


@pytest.fixture(scope="session")
def mistral_v3(tmp_path_factory: pytest.TempPathFactory, spm: Path) -> Path:
    """Mistral's own v3 tokenizer under one random layer; tokenizer_config.json as in Mistral-7B-Instruct-v0.3."""
    package = PathFinder.find_spec("mistral_common")  # for its data alone: see tests/conftest.py
    if package is None or not package.submodule_search_locations:
        pytest.skip("mistral_common is not installed")
    data = package.submodule_search_locations[0]
    shape = Shape(hidden=256, ffn=256, layers=1, heads=4, heads_kv=2, vocab=32768, tied=True)
    base = write_base(tmp_path_factory.mktemp("v3") / "base", shape, spm, base_tensors(shape))
    shutil.copy(Path(data) / "data" / "mistral_instruct_tokenizer_240323.model.v3", base / "tokenizer.model")
    config = {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False,
        "add_prefix_space": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "chat_template": MISTRAL_TEMPLATE,
    }  # fmt: skip
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    return base
