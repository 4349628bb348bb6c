"""Tiny random bases, adapters and runs, built by hand from numpy so that tests know every number in them."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = (
    "{{ bos_token }}{% set sys = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {% if sys and loop.last %}{{ sys }}\n\n{% endif %}{{ m['content'] }}[/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }}[/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
WORDS = (
    "the heart pumps blood through the body and a nurse measures the pressure with a cuff on the upper arm "
    "asthma makes breathing hard because the airways swell an inhaler opens them glaucoma harms the optic nerve "
    "rest drink water see a doctor when the fever stays for more than three days wash hands before you eat "
)


def bf16_bits(values: np.ndarray) -> np.ndarray:
    """Round to bfloat16 by the definition: to nearest, ties to even; independent of the code under test."""
    wide = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    low, high = wide & 0xFFFF, wide >> 16
    up = (low > 0x8000) | ((low == 0x8000) & (high & 1 == 1))
    return (high + up).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    """float32 arrays as a safetensors file of `dtype`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, offset = [], 0
    for name, values in tensors.items():
        data = {"F32": lambda v: v.astype("<f4"), "F16": lambda v: v.astype("<f2"), "BF16": bf16_bits}[dtype](values)
        blob = np.ascontiguousarray(data).tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


@dataclass(frozen=True)
class Shape:
    """A base's dimensions."""

    hidden: int = 64
    ffn: int = 96
    layers: int = 2
    heads: int = 4
    heads_kv: int = 2
    vocab: int = 384
    tied: bool = False
    dtype: str = "BF16"
    extra: tuple[tuple[str, Any], ...] = ()


def base_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every weight under transformers' name."""
    h, q = shape.hidden, shape.hidden
    kv = shape.hidden // shape.heads * shape.heads_kv
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, h)}
    for i in range(shape.layers):
        p = f"model.layers.{i}."
        found |= {
            p + "input_layernorm.weight": (h,),
            p + "post_attention_layernorm.weight": (h,),
            p + "self_attn.q_proj.weight": (q, h),
            p + "self_attn.k_proj.weight": (kv, h),
            p + "self_attn.v_proj.weight": (kv, h),
            p + "self_attn.o_proj.weight": (h, q),
            p + "mlp.gate_proj.weight": (shape.ffn, h),
            p + "mlp.up_proj.weight": (shape.ffn, h),
            p + "mlp.down_proj.weight": (h, shape.ffn),
        }
        if dict(shape.extra).get("attention_bias"):
            sizes = {"q_proj": q, "k_proj": kv, "v_proj": kv, "o_proj": h}
            found |= {p + f"self_attn.{name}.bias": (size,) for name, size in sizes.items()}
    found["model.norm.weight"] = (h,)
    if not shape.tied:
        found["lm_head.weight"] = (shape.vocab, h)
    return found


def base_tensors(shape: Shape, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights under transformers' names."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, size in base_shapes(shape).items():
        values = (rng.standard_normal(size) * 0.08).astype(np.float32)
        found[name] = 1 + values if "norm" in name else values
    return found


def write_base(path: Path, shape: Shape, spm: Path, tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A base directory in the transformers format."""
    path.mkdir(parents=True, exist_ok=True)
    is_llama = bool(dict(shape.extra).get("attention_bias"))  # Mistral has no biases
    config = {
        "architectures": ["LlamaForCausalLM" if is_llama else "MistralForCausalLM"],
        "model_type": "llama" if is_llama else "mistral", "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads_kv, "vocab_size": shape.vocab, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 50000.0, "tie_word_embeddings": shape.tied, "hidden_act": "silu",
        "sliding_window": None, "bos_token_id": 1, "eos_token_id": 2, **dict(shape.extra),
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_safetensors(path / "model.safetensors", base_tensors(shape) if tensors is None else tensors, shape.dtype)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (path / name).write_bytes((spm / name).read_bytes())
    return path


def write_adapter(
    path: Path, shapes: dict[str, tuple[int, int]], *, rank: int = 4, alpha: float = 8, seed: int = 1,
    ranks: dict[str, int] | None = None, **config: Any,
) -> Path:  # fmt: skip
    """A PEFT adapter over modules {name: (rows, columns)}; `ranks` gives single modules another rank."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, (rows, columns) in shapes.items():
        r = (ranks or {}).get(module, rank)
        tensors[f"base_model.model.{module}.lora_A.weight"] = rng.standard_normal((r, columns)).astype(np.float32) * 0.1
        tensors[f"base_model.model.{module}.lora_B.weight"] = rng.standard_normal((rows, r)).astype(np.float32) * 0.1
        if config.get("use_dora"):
            magnitude = rng.uniform(0.2, 1.5, rows).astype(np.float32)
            tensors[f"base_model.model.{module}.lora_magnitude_vector"] = magnitude
    write_safetensors(path / "adapter_model.safetensors", tensors, "F32")
    document = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.05,
        "bias": "none", "target_modules": sorted({module.rpartition(".")[2] for module in shapes}),
        "base_model_name_or_path": None, "inference_mode": True, "init_lora_weights": True, "use_rslora": False,
        "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, **config,
    }  # fmt: skip
    (path / "adapter_config.json").write_text(json.dumps(document), encoding="utf-8")
    return path


def all_linear(shape: Shape) -> dict[str, tuple[int, int]]:
    """Every linear layer of the blocks: module -> (rows, columns)."""
    return {
        name.removesuffix(".weight"): size  # type: ignore[misc]
        for name, size in base_shapes(shape).items()
        if "proj" in name and len(size) == 2
    }


ROWS = [
    {
        "id": "a", "focus": "Asthma", "question_type": "symptoms", "source": "own",
        "messages": [
            {"role": "user", "content": "What makes breathing hard in asthma? 🫁"},
            {"role": "assistant", "content": "The airways swell.\n\n- an inhaler opens them\n- rest"},
        ],
    },
    {
        "id": "b", "focus": "Fever", "question_type": "care", "source": "own",
        "messages": [
            {"role": "user", "content": "When should I see a doctor?"},
            {"role": "assistant", "content": "When the fever stays  for more than three days (≥ 39 °C)."},
            {"role": "user", "content": "And before that?"},
            {"role": "assistant", "content": "Drink water and rest."},
        ],
    },
]  # fmt: skip


def write_run(path: Path, base: Path, shape: Shape, *, heldout: list[dict[str, Any]] | None = None) -> Path:
    """A finished run over a local base, as medmind-train leaves it."""
    from medmind.artifacts import digest_files
    from medmind.base import fingerprint

    adapter = write_adapter(path / "adapter", all_linear(shape), base_model_name_or_path=str(base))
    rows = ROWS if heldout is None else heldout
    (path / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manifest = {
        "format": "medmind-run/1", "name": path.name, "created": "2026-01-02T03:04:05Z",
        "base": {"name": str(base), "kind": "local", "path": str(base), "revision": None, "digest": fingerprint(base)},
        "adapter": {"path": "adapter", "digest": digest_files(adapter, sorted(adapter.iterdir()))},
        "data": {"source": "own sample", "digest": "sha256:00ff", "counts": {"train": 2}},
        "system_prompt": "Answer briefly.", "context": 256, "config": {}, "seed": 1, "versions": {}, "results": {},
    }  # fmt: skip
    (path / "medmind.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


def json_only(base: Path, tokenizer: Any = None) -> Path:
    """Replace tokenizer.model by the tokenizer.json that transformers makes of it, maybe read already."""
    from medmind_convert.tokenizer import Tokenizer

    (tokenizer or Tokenizer(base))._hf.backend_tokenizer.save(str(base / "tokenizer.json"))
    (base / "tokenizer.model").unlink()
    config = json.loads((base / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    return base


def edit_json(base: Path, change: Callable[[dict[str, Any]], None], tokenizer: Any = None) -> Path:
    document = json.loads((json_only(base, tokenizer) / "tokenizer.json").read_text(encoding="utf-8"))
    change(document)
    (base / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return base
