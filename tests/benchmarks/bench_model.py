"""A tiny Mistral with random weights, as GGUF and as the same numbers for transformers; 256 wide for the K-quants."""

import ctypes
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from numpy.typing import NDArray

from medmind import llama

WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, CONTEXT = 256, 2, 4, 2, 512, 256
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
FRAMED = TEMPLATE.replace("{% elif", "{% elif m.role == 'system' %}{{ m.content }}{% elif", 1)
WORDS = ["▁", *"etaonisrhldcumfpgwybvkxqjz.?", "▁t", "he", "▁the", "in", "er", "▁a", "on", "ing", "▁w", "ou", "▁is"]
Weights = dict[str, NDArray[np.float32]]


def vocabulary(words: list[str] = WORDS) -> tuple[list[bytes], list[float], list[int]]:
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    texts = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 4, *[TokenType.BYTE] * 256, *[TokenType.NORMAL] * len(words)]
    scores = [0.0] * 261 + [float(len(word)) for word in words]
    return [text.encode() for text in texts], scores, [int(kind) for kind in types]


VOCABULARY = len(vocabulary()[0])


def weights(seed: int = 3) -> Weights:
    """Names and layout of transformers; rounded to 16 bits, so that f16 and f32 files hold the same."""
    rng = np.random.default_rng(seed)

    def draw(rows: int, columns: int, scale: float) -> NDArray[np.float32]:
        return rng.normal(0, scale, (rows, columns)).astype(np.float16).astype(np.float32)

    found: Weights = {
        "model.embed_tokens.weight": draw(VOCABULARY, WIDTH, 0.2),
        "model.norm.weight": np.ones(WIDTH, dtype=np.float32),
        "lm_head.weight": draw(VOCABULARY, WIDTH, 0.1),
    }
    keys = WIDTH * KV_HEADS // HEADS
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        found[f"{block}.input_layernorm.weight"] = np.ones(WIDTH, dtype=np.float32)
        found[f"{block}.post_attention_layernorm.weight"] = np.ones(WIDTH, dtype=np.float32)
        for name, rows in (("q_proj", WIDTH), ("k_proj", keys), ("v_proj", keys), ("o_proj", WIDTH)):
            found[f"{block}.self_attn.{name}.weight"] = draw(rows, WIDTH, 0.08)
        found[f"{block}.mlp.gate_proj.weight"] = draw(FEED_FORWARD, WIDTH, 0.08)
        found[f"{block}.mlp.up_proj.weight"] = draw(FEED_FORWARD, WIDTH, 0.08)
        found[f"{block}.mlp.down_proj.weight"] = draw(WIDTH, FEED_FORWARD, 0.08)
    return found


_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _interleave(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """ggml's llama rotates neighbours, transformers rotates halves."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(
    path: Path,
    *,
    seed: int = 3,
    words: list[str] = WORDS,
    template: str = TEMPLATE,
    half: bool = True,
    system: str = "",
    facts: dict[str, str] | None = None,
) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1 if half else 0)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    texts, scores, types = vocabulary(words)
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)
    writer.add_string("medmind.system_prompt", system)
    for key, value in (facts or {}).items():
        writer.add_string(key, value)
    for name, matrix in weights(seed).items():
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        values = _interleave(matrix, heads) if heads else matrix
        ours = name
        for theirs, mine in _NAMES.items():
            ours = ours.replace(theirs, mine)
        writer.add_tensor(ours, values.astype(np.float16) if half and values.ndim > 1 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantize(source: Path, target: Path, file_type: int) -> Path:
    llama_cpp = llama.package()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, 1
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0
    return target
