"""Merged weights against PEFT's own merge; what cannot be merged faithfully is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import Shape, all_linear, base_tensors, bf16_bits, write_adapter, write_base, write_safetensors

from medmind.errors import MedmindError
from medmind_convert import adapter as adapters
from medmind_convert.architecture import Placement
from medmind_convert.merge import BLOCK, merged_blocks
from medmind_convert.weights import narrow, open_tensors, widen

Q0 = "model.layers.0.self_attn.q_proj"


def merged(base: Path, adapter: Path) -> dict[str, np.ndarray]:
    """Every base tensor after the merge, as float32, in the base's row order."""
    tensors = open_tensors([base / "model.safetensors"])
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    deltas = adapters.load(adapter, shapes, tied=False).deltas
    return {
        name: widen(
            np.concatenate(
                [*merged_blocks(Placement(name, name, tensor.shape), tensor, deltas.get(name), tensor.dtype)]
            ),
            tensor.dtype,
        )
        for name, tensor in tensors.items()
    }


def merged_by_peft(base: Path, adapter: Path, dtype: str) -> dict[str, np.ndarray]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=kind), adapter)
    state = model.merge_and_unload().state_dict()
    return {name: values.float().numpy() for name, values in state.items()}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"alpha": 3.5, "alpha_pattern": {"q_proj": 32, "layers.1.mlp.up_proj": 2}},
        {"ranks": {Q0: 2}, "rank_pattern": {"layers.0.self_attn.q_proj": 2}, "use_rslora": True},
        {"alpha_pattern": {r"model\.layers\.[0]\..*proj": 1, "q_proj": 64}},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True, "ranks": {Q0: 2}, "rank_pattern": {"layers.0.self_attn.q_proj": 2}},
    ],
    ids=["plain", "rslora", "alpha_pattern", "rank_pattern", "first pattern wins", "dora", "dora and more"],
)
def test_merged_weights_are_pefts_within_one_rounding(
    config: dict[str, Any], dtype: str, tmp_path: Path, make_base: Callable[..., Path]
):
    base = make_base(dtype=dtype)
    adapter = write_adapter(tmp_path / "adapter", all_linear(Shape()), **config)
    own, reference = merged(base, adapter), merged_by_peft(base, adapter, dtype)
    assert own.keys() == reference.keys()
    before = {name: tensor.rows(slice(None)) for name, tensor in open_tensors([base / "model.safetensors"]).items()}
    step = {"F32": 2.0**-22, "F16": 2.0**-10, "BF16": 2.0**-7}[dtype]
    differing = 0
    for name, values in own.items():
        # one unit in the last place of the result, plus float32's own error of the sum where it cancels
        room = np.abs(reference[name]) * step + np.abs(before[name]) * 2.0**-20
        assert (np.abs(values - reference[name]) <= room).all(), name
        differing += int((values != reference[name]).sum())
    changed = sum(int((own[name] != before[name]).sum()) for name in own)
    assert changed > 10_000  # the adapter is not lost
    if dtype != "F32":
        assert differing < changed / 500  # a rounding goes the other way now and then, never as a rule


def test_rounding_to_bf16_is_to_nearest_even():
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            rng.standard_normal(100_000).astype(np.float32) * 10.0 ** rng.integers(-40, 38, 100_000),
            np.array([0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 3.3895314e38, 1e-45], np.float32),
        ]
    ).astype(np.float32)
    assert np.array_equal(narrow(values, "BF16"), bf16_bits(values))
    assert np.array_equal(widen(narrow(values, "BF16"), "BF16").view(np.uint32) & 0xFFFF, np.zeros(len(values)))


def test_a_tensor_larger_than_a_block_comes_out_as_one(tmp_path: Path):
    """Rows are permuted and merged block by block: no row is lost or doubled at a seam."""
    columns = BLOCK // 8 + 16
    values = np.random.default_rng(0).standard_normal((24, columns)).astype(np.float32)
    write_safetensors(tmp_path / "m.safetensors", {"w": values}, "F32")
    tensor = open_tensors([tmp_path / "m.safetensors"])["w"]
    blocks = list(merged_blocks(Placement("w", "w", (24, columns), heads=3), tensor, None, "F32"))
    assert len(blocks) > 2
    # llama.cpp's LlamaModel.permute, by its definition
    expected = values.reshape(3, 2, 4, columns).swapaxes(1, 2).reshape(24, columns)
    assert np.array_equal(np.concatenate(blocks), expected)


def load(base: Path, adapter: Path, *, tied: bool = False) -> adapters.Adapter:
    shapes = {name: tensor.shape for name, tensor in open_tensors([base / "model.safetensors"]).items()}
    return adapters.load(adapter, shapes, tied=tied)


def test_an_adapter_of_other_dimensions_is_refused_naming_the_tensor(tmp_path: Path, make_base: Callable[..., Path]):
    adapter = write_adapter(tmp_path / "adapter", all_linear(Shape(hidden=128)))
    with pytest.raises(MedmindError, match=r"does not match the base: .*lora_[AB]\.weight is .*_proj\.weight is"):
        load(make_base(), adapter)


def test_an_adapter_of_a_deeper_model_is_refused_naming_the_tensor(tmp_path: Path, make_base: Callable[..., Path]):
    adapter = write_adapter(tmp_path / "adapter", all_linear(Shape(layers=3)))
    with pytest.raises(MedmindError, match=r"layers\.2\..*has no counterpart"):
        load(make_base(), adapter)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("base_model.model.model.embed_tokens.lora_embedding_A", (4, 384)),
        (f"base_model.model.{Q0}.lora_magnitude_vector", (64,)),
        (f"base_model.model.{Q0}.lora_B.bias", (64,)),
        ("base_model.model.lm_head.modules_to_save.weight", (384, 64)),
        ("something.else", (2,)),
    ],
)
def test_an_unused_key_of_the_adapter_is_an_error(
    key: str, values: tuple[int, ...], tmp_path: Path, make_base: Callable[..., Path]
):
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)})
    tensors = {n: t.rows(slice(None)) for n, t in open_tensors([adapter / "adapter_model.safetensors"]).items()}
    write_safetensors(adapter / "adapter_model.safetensors", {**tensors, key: np.ones(values, np.float32)}, "F32")
    with pytest.raises(MedmindError) as raised:
        load(make_base(), adapter)
    assert key in str(raised.value)


def test_half_a_pair_is_refused(tmp_path: Path, make_base: Callable[..., Path]):
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)})
    name = f"base_model.model.{Q0}.lora_A.weight"
    write_safetensors(adapter / "adapter_model.safetensors", {name: np.ones((4, 64), np.float32)}, "F32")
    with pytest.raises(MedmindError, match=r"lacks .*q_proj\.lora_B\.weight"):
        load(make_base(), adapter)


def test_dora_without_its_magnitude_or_with_one_of_another_length_is_refused(
    tmp_path: Path, make_base: Callable[..., Path]
):
    base = make_base()
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)}, use_dora=True)
    file, name = adapter / "adapter_model.safetensors", f"base_model.model.{Q0}.lora_magnitude_vector"
    tensors = {n: tensor.rows(slice(None)) for n, tensor in open_tensors([file]).items()}
    write_safetensors(file, {**tensors, name: np.ones(32, np.float32)}, "F32")
    with pytest.raises(MedmindError, match=r"lora_magnitude_vector is \(32,\), .*q_proj\.weight has 64 rows"):
        load(base, adapter)
    write_safetensors(file, {n: values for n, values in tensors.items() if n != name}, "F32")
    with pytest.raises(MedmindError, match=r"lacks .*q_proj\.lora_magnitude_vector"):
        load(base, adapter)


def test_a_magnitude_that_is_not_finite_is_named(tmp_path: Path, make_base: Callable[..., Path]):
    base = make_base()
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)}, use_dora=True)
    file, name = adapter / "adapter_model.safetensors", f"base_model.model.{Q0}.lora_magnitude_vector"
    tensors = {n: tensor.rows(slice(None)) for n, tensor in open_tensors([file]).items()}
    tensors[name][7] = np.nan
    write_safetensors(file, tensors, "F32")
    with pytest.raises(MedmindError, match=r"lora_magnitude_vector of the adapter holds NaN"):
        merged(base, adapter)


def test_a_rank_other_than_the_configs_is_refused(tmp_path: Path, make_base: Callable[..., Path]):
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)}, rank_pattern={"q_proj": 8})
    with pytest.raises(MedmindError, match="not of the rank 8"):
        load(make_base(), adapter)


def test_an_adapter_of_a_tied_output_layer_is_refused(tmp_path: Path, make_base: Callable[..., Path]):
    adapter = write_adapter(tmp_path / "adapter", {"lm_head": (384, 64)})
    with pytest.raises(MedmindError, match="lm_head, which this base ties"):
        load(make_base(tied=True), adapter, tied=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modules_to_save", ["lm_head"]), ("bias", "all"), ("lora_bias", True),
        ("fan_in_fan_out", True), ("layer_replication", [[0, 2]]), ("trainable_token_indices", [5]),
        ("init_lora_weights", "pissa"), ("init_lora_weights", "olora"), ("use_qalora", True),
        ("target_parameters", ["x"]), ("some_future_variant", {"k": 1}),
    ],
)  # fmt: skip
def test_what_the_merge_would_get_wrong_is_refused_by_name(field: str, value: Any, tmp_path: Path):
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)}, **{field: value})
    with pytest.raises(MedmindError, match=field):
        adapters.read_config(adapter)


def test_peft_knows_no_field_of_its_own_that_a_plain_adapter_trips_over(tmp_path: Path):
    """The config PEFT itself writes for a plain LoRA, with every field it knows today, is accepted."""
    from peft import LoraConfig

    LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert len(config) > 30
    write_safetensors(tmp_path / "adapter_model.safetensors", {"x": np.ones(1, np.float32)}, "F32")
    adapters.read_config(tmp_path)


def test_another_kind_of_adapter_and_a_pickle_are_refused(tmp_path: Path):
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)}, peft_type="LOHA")
    with pytest.raises(MedmindError, match="LOHA"):
        adapters.read_config(adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(MedmindError, match="pickle"):
        adapters.read_config(adapter)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["base", "adapter", "product"])
def test_nan_and_infinity_are_named_with_their_tensor(bad: float, where: str, tmp_path: Path, spm: Path):
    tensors = base_tensors(Shape())
    adapter = write_adapter(tmp_path / "adapter", {Q0: (64, 64)})
    if where == "base":
        tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = bad
        expected = r"layers\.1\.mlp\.up_proj\.weight in .* holds NaN or infinity"
    else:
        file = adapter / "adapter_model.safetensors"
        values = {name: tensor.rows(slice(None)) for name, tensor in open_tensors([file]).items()}
        values[f"base_model.model.{Q0}.lora_B.weight"][3, 1] = bad if where == "adapter" else 3e38
        values[f"base_model.model.{Q0}.lora_A.weight"][1, :] = 1.0 if where == "adapter" else 3e38
        write_safetensors(file, values, "F32")
        expected = r"q_proj\.lora_B\.weight of the adapter" if where == "adapter" else r"q_proj\.weight overflows"
    base = write_base(tmp_path / "base", Shape(dtype="F32"), spm, tensors)
    with np.errstate(all="ignore"), pytest.raises(MedmindError, match=expected):
        merged(base, adapter)


def test_a_value_beyond_f16_is_refused_and_not_written_as_infinity(tmp_path: Path):
    write_safetensors(tmp_path / "m.safetensors", {"w": np.full((4, 32), 70000, np.float32)}, "BF16")
    tensor = open_tensors([tmp_path / "m.safetensors"])["w"]
    with pytest.raises(MedmindError, match="w holds values beyond f16's range"):
        list(merged_blocks(Placement("w", "w", (4, 32)), tensor, None, "F16"))
