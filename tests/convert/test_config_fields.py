"""Every field that is read from config.json and adapter_config.json, of a wrong type: one line names file and field."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import Shape, all_linear, write_adapter, write_safetensors
from typer.testing import CliRunner

from medmind import base
from medmind.artifacts import read_json
from medmind.errors import MedmindError
from medmind_convert import adapter as adapters
from medmind_convert import adapter_file, architecture, vocabulary_outline
from medmind_convert.cli import app
from medmind_convert.source import find
from medmind_convert.tokenizer import Tokenizer

NAN, INF = float("nan"), float("inf")
COUNTS = ("num_attention_heads", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
COUNTS += ("max_position_embeddings", "num_key_value_heads", "head_dim", "sliding_window")
WRONG: list[tuple[str, Any]] = [
    *((field, value) for field in COUNTS for value in ("64", [64], {}, 2.5, True, 0, -1, NAN, INF, 10**400)),
    *((field, value) for field in ("rms_norm_eps", "rope_theta") for value in ("x", [1], True, 0, NAN, INF, 10**400)),
    *((field, "x") for field in ("rope_scaling", "rope_parameters", "tie_word_embeddings", "attention_bias")),
    *((field, [1]) for field in ("rope_scaling", "rope_parameters", "mlp_bias", "hidden_act")),
    *(("eos_token_id", value) for value in ("2", [2, "x"], {}, -1, 384, True, 2.0)),
]


def changed(path: Path, **change: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_a_base_field_of_a_wrong_type_is_named(make_base: Callable[..., Path]):
    folder = make_base()
    config = folder / "config.json"
    before = config.read_text()
    for field, value in WRONG:
        changed(config, **{field: value})
        with pytest.raises(MedmindError, match=rf"^{re.escape(str(config))} gives {field} as ") as caught:
            architecture.read(folder)
        assert caught.value.hint.startswith("it must be "), (field, value)
        config.write_text(before)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, null]}')
    with pytest.raises(MedmindError, match=r"generation_config\.json gives eos_token_id"):
        architecture.read(folder)


def test_fields_within_the_scaling_of_positions_are_named(make_base: Callable[..., Path]):
    folder = make_base()
    for rope, words in (
        ({"rope_type": 3}, "gives rope_scaling.rope_type as 3"),
        ({"type": "linear"}, "gives rope_scaling.factor as null"),
        ({"type": "linear", "factor": "2"}, 'gives rope_scaling.factor as "2"'),
        ({"rope_type": "default", "rope_theta": NAN}, "gives rope_scaling.rope_theta as NaN"),
        ({"full_attention": {"rope_type": "yarn"}}, "rope_scaling.full_attention"),
    ):
        changed(folder / "config.json", rope_scaling=rope)
        with pytest.raises(MedmindError, match=re.escape(words)):
            architecture.read(folder)


def test_two_scalings_of_positions_that_disagree_are_refused(make_base: Callable[..., Path]):
    """transformers would take `rope_scaling`, whatever `rope_parameters` says."""
    folder = make_base()
    plain, linear = {"rope_type": "default", "rope_theta": 50000.0}, {"type": "linear", "factor": 2.0}
    yarn = {"rope_type": "yarn", "factor": 4.0}
    for new, old in ((plain, yarn), (plain, linear), (linear, yarn), ({**plain, "rope_theta": 1e6}, plain)):
        changed(folder / "config.json", rope_parameters=new, rope_scaling=old)
        with pytest.raises(MedmindError, match=r"scales positions in two ways: rope_parameters says '"):
            architecture.read(folder)
    for new, old, factor in ((plain, None, 1.0), (linear, {}, 2.0), (None, linear, 2.0), (linear, linear, 2.0)):
        changed(folder / "config.json", rope_parameters=new, rope_scaling=old)
        read = architecture.read(folder)
        assert (read.rope_base, read.rope_factor) == (50000.0, factor)


def test_an_index_that_places_a_tensor_in_no_file_is_broken(make_base: Callable[..., Path]):
    folder = make_base()
    (folder / base.INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": 3}}))
    with pytest.raises(MedmindError, match=r"index\.json is broken: it gives lm_head.weight the file 3"):
        base.check(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({"lora_alpha": value}, "gives lora_alpha as") for value in (NAN, INF, -1, 0, "8", [8], True, 10**400)),
        *(({"r": value}, "gives r as") for value in (NAN, 0, -4, 4.0, "4", [4], {})),
        *(({key: 3}, f"gives {key} as 3") for key in ("alpha_pattern", "rank_pattern", "use_dora", "use_rslora")),
        *(({"alpha_pattern": {"q_proj": v}}, "gives alpha_pattern.q_proj as") for v in (NAN, None, "x", 0)),
        *(({"rank_pattern": {"q_proj": v}}, "gives rank_pattern.q_proj as") for v in (2.5, None, "x", 0)),
        ({"alpha_pattern": {"(": 3}}, "has the pattern '(' in alpha_pattern"),
        ({"bias": 3}, "gives bias as 3"),
        ({"peft_type": ["LORA"]}, "gives peft_type as"),
        ({"base_model_name_or_path": ["x"]}, "gives base_model_name_or_path as"),
        ({"target_modules": 5}, "gives target_modules as 5"),
        ({"use_rslora": "false"}, 'gives use_rslora as "false"'),
    ],
)
def test_an_adapter_field_of_a_wrong_type_is_named(change: dict[str, Any], words: str, tmp_path: Path):
    config = write_adapter(tmp_path / "lora", {"lm_head": (4, 4)}) / adapters.CONFIG
    changed(config, **change)
    with pytest.raises(MedmindError, match=re.escape(f"{config} {words}")):
        adapters.read_config(config.parent)


def test_a_tokenizer_field_of_a_wrong_type_is_named(make_base: Callable[..., Path]):
    folder = make_base()
    file = folder / "tokenizer_config.json"
    before = file.read_text()
    for field, value in (
        ("chat_template", 5), ("chat_template", [{"name": "x"}]), ("add_bos_token", "x"), ("eos_token", 5),
        ("added_tokens_decoder", {"x": {"content": "y"}}), ("added_tokens_decoder", [1]), ("tokenizer_class", []),
    ):  # fmt: skip
        changed(file, **{field: value})
        for read in (lambda: Tokenizer(folder), lambda: vocabulary_outline.read(folder, 384)):
            with pytest.raises(MedmindError, match=rf"^{re.escape(str(file))} gives {field}") as caught:
                read()
            assert caught.value.hint.startswith("it must be "), (field, value)
        file.write_text(before)


def test_what_transformers_refuses_of_a_config_is_not_blamed_on_the_tokenizer(make_base: Callable[..., Path]):
    folder = make_base()
    changed(folder / "config.json", rms_norm_eps=None)
    with pytest.raises(MedmindError, match=r"config\.json gives rms_norm_eps as null"):
        architecture.read(folder)
    with pytest.raises(MedmindError, match=r"config\.json does not load: .*rms_norm_eps"):
        Tokenizer(folder)
    changed(folder / "config.json", architectures="LlamaForCausalLM")
    with pytest.raises(MedmindError, match=r'config\.json gives architectures as "LlamaForCausalLM"'):
        base.check(folder)


@pytest.mark.parametrize("named", [("gguf", "q8_0"), ("merge",), ("adapter",), ("plan",)])
def test_every_command_refuses_an_alpha_that_is_no_number(
    named: tuple[str, ...], tmp_path: Path, make_base: Callable[..., Path]
):
    adapter = write_adapter(tmp_path / "lora", all_linear(Shape()), alpha=NAN)
    before = set(tmp_path.rglob("*"))
    arguments = [*named, str(adapter), "--base", str(make_base()), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, MedmindError)
    assert f"{adapter / adapters.CONFIG} gives lora_alpha as NaN" in str(done.exception)
    assert {path for path in tmp_path.rglob("*") if "base" not in path.parts} == before


def test_what_overflows_in_float32_is_refused(tmp_path: Path, make_base: Callable[..., Path]):
    adapter = write_adapter(
        tmp_path / "lora", all_linear(Shape()), alpha=1e300, base_model_name_or_path=str(make_base())
    )
    with pytest.raises(MedmindError, match=re.escape(f"{adapter / adapters.CONFIG} scales model.layers.0.mlp.down")):
        adapter_file.write(find(str(adapter), out=tmp_path / "out"), "F32")
    changed(adapter / adapters.CONFIG, lora_alpha=1e39)
    q = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{q}.lora_A.weight": np.ones((4, 64)), f"{q}.lora_B.weight": np.full((64, 4), 4.0)}
    write_safetensors(adapter / adapters.WEIGHTS, factors, "F32")
    with pytest.raises(MedmindError, match=re.escape(f"{q}.lora_B.weight of the adapter overflows when it is scaled")):
        adapter_file.write(find(str(adapter), out=tmp_path / "out"), "F32")
    assert not (tmp_path / "out").exists()


def test_a_rank_other_than_the_files_is_told_with_its_folder(tmp_path: Path):
    config = write_adapter(tmp_path / "lora", {"lm_head": (8, 8)}) / adapters.CONFIG
    changed(config, r=2)
    with pytest.raises(MedmindError, match=re.escape(f"not of the rank 2 that {config} gives")):
        adapters.load(config.parent, {"lm_head.weight": (8, 8)}, tied=False)
    changed(config, r=None)
    with pytest.raises(MedmindError, match=re.escape(f"{config} gives lm_head the rank None")):
        adapters.load(config.parent, {"lm_head.weight": (8, 8)}, tied=False)


def test_numbers_of_any_length_and_depth_are_no_traceback(tmp_path: Path):
    for text in (f'{{"r": {"9" * 5000}}}', "[" * 100_000):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(MedmindError, match=r"c\.json is not valid JSON"):
            read_json(tmp_path / "c.json")
