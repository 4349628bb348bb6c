"""Which layers get an adapter, of what rank and scale; a wrong word is one line that names the nearest."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmind.base import Base
from medmind.errors import MedmindError
from medmind_train import lora
from medmind_train.config import build, read_yaml, to_yaml
from medmind_train.model import save_adapter
from medmind_train.qlora_config import QloraConfig

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}


def layers(model: Any) -> dict[str, Any]:
    """The adapted layers by their names in the base."""
    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "scaling")
    }


@pytest.mark.parametrize(
    ("targets", "kinds", "number"),
    [
        ("qv", {"q_proj", "v_proj"}, 10),
        ("attention", ATTENTION, 20),
        ("mlp", MLP, 15),
        ("all-linear", ATTENTION | MLP, 35),
        ("down_proj, k_proj", {"down_proj", "k_proj"}, 10),
        ("layers.3.mlp.up_proj,o_proj", {"up_proj", "o_proj"}, 6),
    ],
)
def test_targets_are_the_layers_they_name(
    targets: str, kinds: set[str], number: int, adapted: Callable[..., Any], base: Base
):
    lora.check(base, targets)
    found = layers(adapted(targets=targets))
    assert {name.rpartition(".")[2] for name in found} == kinds
    assert len(found) == number


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("all_linear", ("'all_linear'", "nearest: all-linear")),
        ("q_porj", ("'q_porj'", "medmind-base", "nearest: q_proj")),
        ("q_proj,up_prjo", ("'up_prjo'", "nearest: up_proj")),
        ("qv,up_proj", ("'qv'", "nearest:")),
        ("layers.9.mlp.up_proj", ("'layers.9.mlp.up_proj'", "nearest: ", "mlp.up_proj")),
        ("lm_head", ("'lm_head'", "no such layer")),
        ("q_proj,,v_proj", ("empty name",)),
    ],
)
def test_a_target_the_base_does_not_have_is_one_line_with_the_nearest(
    qlora: Callable[..., Any], tmp_path: Path, targets: str, words: tuple[str, ...]
):
    qlora("--targets", targets).refused("--targets", *words)
    assert not list(tmp_path.iterdir())


def test_a_preset_the_base_lacks_says_which_layers_there_are(base: Base, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lora, "linear_layers", lambda path: ["layers.0.attn.qkv_proj", "layers.0.mlp.fc1"])
    with pytest.raises(MedmindError, match=r"--targets qv means q_proj, v_proj, and medmind-base has no q_proj") as it:
        lora.check(base, "qv")
    assert "all-linear, or from qkv_proj, fc1" in str(it.value.hint)


def test_linear_layers_of_the_headers_are_the_ones_peft_finds(base: Base, adapted: Callable[..., Any]):
    assert set(lora.linear_layers(base.path)) == set(layers(adapted(targets="all-linear")))


def test_patterns_and_rslora_give_each_layer_its_rank_and_scale(adapted: Callable[..., Any], tmp_path: Path):
    patterns = {"layers.0.self_attn.q_proj": 2, "q_proj": 8}
    model = adapted(rank_pattern=patterns, alpha_pattern={"v_proj": 3.5}, rslora=True)
    found = layers(model)
    seen = {name[len("model.layers.") :]: module for name, module in found.items()}
    ranks = {name: module.lora_A["default"].weight.shape[0] for name, module in seen.items()}
    assert ranks["0.self_attn.q_proj"] == 2
    assert ranks["1.self_attn.q_proj"] == 8
    assert ranks["1.self_attn.v_proj"] == 4
    assert seen["0.self_attn.q_proj"].scaling["default"] == pytest.approx(8 / math.sqrt(2))
    assert seen["4.self_attn.v_proj"].scaling["default"] == pytest.approx(3.5 / 2)
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["use_rslora"] is True
    assert list(config["rank_pattern"].items()) == list(patterns.items())  # the order decides which one counts
    assert config["alpha_pattern"] == {"v_proj": 3.5}


def test_patterns_are_the_same_by_flag_and_by_file(tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "rank-pattern:\n  q_proj: 8\n  'layers\\.[0-3]{1,2}\\.mlp': 32\nalpha_pattern: {q_proj: 1e1}\n",
        encoding="utf-8",
    )
    config = build(QloraConfig, read_yaml(file, QloraConfig))
    assert config.rank_pattern == {"q_proj": 8, r"layers\.[0-3]{1,2}\.mlp": 32}
    assert config.alpha_pattern == {"q_proj": 10.0}
    flags = build(QloraConfig, {"rank_pattern": "q_proj=8, down_proj = 32", "alpha_pattern": "v_proj=2.5"})
    assert flags.rank_pattern == {"q_proj": 8, "down_proj": 32}
    assert flags.alpha_pattern == {"v_proj": 2.5}
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config, "resolved"), encoding="utf-8")
    assert build(QloraConfig, read_yaml(again, QloraConfig)) == config


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--rank-pattern", "q_proj"), ("--rank-pattern cannot be 'q_proj'", "NAME=NUMBER")),
        (("--rank-pattern", "q_proj=0"), ("--rank-pattern q_proj cannot be 0", "at least 1")),
        (("--rank-pattern", "q_proj=2.5"), ("--rank-pattern q_proj cannot be 2.5", "int")),
        (("--rank-pattern", "q_proj=many"), ("--rank-pattern q_proj cannot be 'many'", "int")),
        (("--rank-pattern", "q_proj=2,q_proj=4"), ("gives 'q_proj' twice",)),
        (("--rank-pattern", "=4"), ("NAME=NUMBER",)),
        (("--alpha-pattern", "q_proj=-1"), ("--alpha-pattern q_proj cannot be -1", "above 0")),
        (("--rank-pattern", "q_porj=4"), ("'q_porj' matches no layer of the base", "nearest: q_proj")),
        (("--targets", "qv", "--alpha-pattern", "up_proj=4"), ("'up_proj' matches no layer that gets", "--targets")),
        (("--rank-pattern", "q_proj=4,layers.0.self_attn.q_proj=8"), ("never counts", "narrower pattern first")),
        (("--rank-pattern", "q_(proj=4"), ("'q_(proj', no regular expression",)),
        (("--lora-plus", "0.5"), ("--lora-plus", "at least 1")),
    ],
)
def test_a_wrong_pattern_is_one_line(
    qlora: Callable[..., Any], tmp_path: Path, flags: tuple[str, ...], words: tuple[str, ...]
):
    qlora(*flags).refused(*words)
    assert not list(tmp_path.iterdir())
