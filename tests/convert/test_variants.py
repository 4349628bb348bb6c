"""Each LoRA variant that training offers: the merged model computes what the adapter model computes.

The adapters are trained on a small base in 4 bit by the train room's own code, then merged into the base itself.
`pytest -rP` prints the differences.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bases import write_safetensors

from medmind import llama
from medmind.base import Base
from medmind_convert import adapter as adapters
from medmind_convert import quants
from medmind_convert.architecture import Placement
from medmind_convert.convert import convert
from medmind_convert.merge import merged_blocks
from medmind_convert.source import find
from medmind_convert.weights import open_tensors, widen

PATTERNS = {"rank_pattern": {"q_proj": 2, r"layers\.[01]\.mlp\..*": 8}, "alpha_pattern": {"down_proj": 3, "k_proj": 40}}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "patterns": PATTERNS,
    "lora+": {"lora_plus": 16.0},
    "all at once": {"rslora": True, "dora": True, "lora_plus": 4.0, **PATTERNS},
}
WITHOUT = {"rslora": "use_rslora", "dora": "use_dora", "rank_pattern": "rank_pattern", "alpha_pattern": "alpha_pattern"}
"""Setting -> the field of adapter_config.json that a careless merge would overlook."""
FP32 = 1e-4
"""Bound on the logit difference in float32; logits have a spread of several units."""


def ids() -> torch.Tensor:
    return torch.randint(10, 3800, (1, 48), generator=torch.Generator().manual_seed(3))


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(ids()).logits[0].float().numpy()


def load(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)


def train(base: Base, folder: Path, *, lora_plus: float = 1.0, **settings: Any) -> Path:
    """Eight steps of next-token training in 4 bit: every A, B and magnitude has moved."""
    from medmind_train import model as models
    from medmind_train import optimizer as optimizers

    shape = {"targets": "all-linear", "rank": 4, "alpha": 8.0, "dropout": 0.0, "checkpointing": False, "seed": 1}
    tuned = models.add_adapter(models.load_base(base, "cpu", "float32"), base, **shape, **settings)
    groups = optimizers.groups(tuned.named_parameters(), weight_decay=0.0, lora_plus=lora_plus)
    optimizer = optimizers.make("adamw", groups, lr=3e-3, weight_decay=0.0)
    tuned.train()
    data = ids()
    for _ in range(8):
        tuned(data, labels=data).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder.mkdir()
    models.save_adapter(tuned, folder)
    return folder


def merge(base: Path, adapter: Path) -> dict[str, np.ndarray]:
    """Every tensor of the base after our merge, as float32."""
    tensors = open_tensors([base / "model.safetensors"])
    deltas = adapters.load(adapter, {name: tensor.shape for name, tensor in tensors.items()}, tied=True).deltas
    return {
        name: widen(
            np.concatenate([*merged_blocks(Placement(name, name, t.shape), t, deltas.get(name), t.dtype)]), t.dtype
        )
        for name, t in tensors.items()
    }


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, np.ndarray]:
    from peft import PeftModel

    state = PeftModel.from_pretrained(load(base, dtype), adapter).merge_and_unload().state_dict()
    return {name: values.float().numpy() for name, values in state.items()}


@pytest.fixture(scope="module")
def base32(small_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small base with its weights as float32."""
    path = tmp_path_factory.mktemp("bases") / "base32"
    shutil.copytree(small_base.path, path)
    tensors = open_tensors([small_base.path / "model.safetensors"])
    values = {name: tensor.rows(slice(None)) for name, tensor in tensors.items()}
    write_safetensors(path / "model.safetensors", values, "F32")
    return path


@dataclass(frozen=True)
class Trained:
    name: str
    adapter: Path
    logits: np.ndarray
    """Of PEFT's adapter model on the float32 base."""


@pytest.fixture(scope="module", params=VARIANTS)
def trained(
    request: pytest.FixtureRequest, small_base: Base, base32: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    from peft import PeftModel

    adapter = train(small_base, tmp_path_factory.mktemp("adapters") / "adapter", **VARIANTS[request.param])
    return Trained(request.param, adapter, logits(PeftModel.from_pretrained(load(base32), adapter)))


def test_the_merged_model_computes_what_the_adapter_model_computes(trained: Trained, base32: Path):
    """In float32, where nothing is rounded but the order of sums."""
    merged = load(base32)
    before = logits(merged)
    own = merge(base32, trained.adapter)
    merged.load_state_dict({name: torch.from_numpy(values) for name, values in own.items()}, strict=False)
    difference = float(np.abs(logits(merged) - trained.logits).max())
    print(f"{trained.name}: max logit difference {difference:.1e}")
    assert np.abs(before - trained.logits).max() > 1  # the adapter matters
    assert difference < FP32


def test_the_merge_notices_every_setting_of_the_variant(trained: Trained, base32: Path, tmp_path: Path):
    """With any of its settings overlooked the merged model is another one: the comparison above would fail."""
    settings = [name for name in VARIANTS[trained.name] if name in WITHOUT]
    for setting in settings:
        other = tmp_path / setting
        shutil.copytree(trained.adapter, other)
        config = json.loads((other / adapters.CONFIG).read_text(encoding="utf-8"))
        field = WITHOUT[setting]
        assert config[field]
        if setting == "rank_pattern":  # A and B show the rank; what is overlooked is its part in the scale
            config |= {"rank_pattern": {}, "r": 4}
        else:
            config[field] = {} if setting == "alpha_pattern" else False
        (other / adapters.CONFIG).write_text(json.dumps(config), encoding="utf-8")
        values = {n: t.rows(slice(None)) for n, t in open_tensors([other / adapters.WEIGHTS]).items()}
        if setting == "dora":
            values = {name: value for name, value in values.items() if "magnitude" not in name}
        if setting == "rank_pattern":
            values = {name: _at_rank_4(name, value) for name, value in values.items()}
        write_safetensors(other / adapters.WEIGHTS, values, "F32")
        merged = load(base32)
        own = merge(base32, other)
        merged.load_state_dict({name: torch.from_numpy(value) for name, value in own.items()}, strict=False)
        assert np.abs(logits(merged) - trained.logits).max() > 100 * FP32, setting


def _at_rank_4(name: str, value: np.ndarray) -> np.ndarray:
    """The factor cut or padded with zeros to rank 4."""
    if "lora_A" in name:
        return np.pad(value, ((0, max(0, 4 - value.shape[0])), (0, 0)))[:4]
    if "lora_B" in name:
        return np.pad(value, ((0, 0), (0, max(0, 4 - value.shape[1]))))[:, :4]
    return value


def test_weights_merged_into_the_16_bit_base_are_within_one_rounding(trained: Trained, small_base: Base, base32: Path):
    """Of the merge in float32, which has no rounding; and PEFT's own merge differs by an odd step now and then only."""
    own, exact = merge(small_base.path, trained.adapter), merge(base32, trained.adapter)
    peft = merged_by_peft(small_base.path, trained.adapter, torch.bfloat16)
    differing = changed = 0
    tensors = open_tensors([small_base.path / "model.safetensors"])
    for name, values in own.items():
        before = tensors[name].rows(slice(None))
        # half a unit in the last place of bfloat16's 8 bits; an ulp is at most 2⁻⁷ of the value
        assert (np.abs(values - exact[name]) <= np.abs(exact[name]) * 2.0**-8 + 1e-38).all(), name
        # a float32 sum that cancels may land on the other side of a rounding border
        assert (np.abs(values - peft[name]) <= np.abs(values) * 2.0**-7 + np.abs(before) * 2.0**-20).all(), name
        differing += int((values != peft[name]).sum())
        changed += int((values != before).sum())
    assert changed > sum(values.size for name, values in own.items() if "_proj" in name) / 3
    assert differing < changed / 500


def test_float32_merge_is_pefts(trained: Trained, base32: Path):
    own, peft = merge(base32, trained.adapter), merged_by_peft(base32, trained.adapter, torch.float32)
    for name, values in own.items():
        assert np.abs(values - peft[name]).max() < 2e-6, name


def test_a_gguf_of_the_variant_computes_what_the_adapter_model_computes(trained: Trained, base32: Path, tmp_path: Path):
    source = find(None, base_name=str(base32), adapter=trained.adapter, out=tmp_path)
    results, _ = convert(source, quants.parse(["f32"]))
    (tokens,) = ids().tolist()
    model = llama.package().Llama(
        str(results[0].file), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0, n_threads=1
    )
    model.eval(tokens)
    difference = float(np.abs(np.array(model.scores[: len(tokens)]) - trained.logits).max())
    print(f"{trained.name}: max logit difference {difference:.1e}")
    assert difference < 3 * FP32


def test_dora_rows_get_the_trained_length_on_either_base(small_base: Base, base32: Path, tmp_path: Path):
    """The magnitude was trained beside NF4 values; the merged rows of the 16-bit base have that length all the same."""
    adapter = train(small_base, tmp_path / "adapter", dora=True)
    file = open_tensors([adapter / adapters.WEIGHTS])
    own = merge(base32, adapter)
    before = {name: tensor.rows(slice(None)) for name, tensor in open_tensors([base32 / "model.safetensors"]).items()}
    for name, tensor in file.items():
        if "magnitude" in name:
            weight = name.removeprefix("base_model.model.").removesuffix(".lora_magnitude_vector") + ".weight"
            wanted = tensor.rows(slice(None))
            assert np.allclose(np.linalg.norm(own[weight], axis=1), wanted, rtol=1e-5)
            assert not np.allclose(np.linalg.norm(before[weight], axis=1), wanted, rtol=1e-2)
