"""How much memory a model will take in a process of its own, told from its header. Knows no machine, loads nothing.

Repacked weights take the place of mapped ones, whose pages the system can take back: they are counted once.
"""

from medmind_benchmarks.model_file import ModelFile
from medmind_benchmarks.opening import BATCH

PROCESS = 56 * 2**20
"""Resident bytes of Python, the libraries and a vocabulary: 54 to 60 MiB in the committed results."""
_ACTIVATION = 4
"""Bytes of a number between two layers: ggml computes activations in f32."""
_MASK = 2
"""Bytes of the attention mask for one token and one place of the KV cache: flash attention takes it in f16
(`build_attn_inp_kq_mask` of llama.cpp's src/llama-graph.cpp)."""
_INPUTS = 4 + 8 + 8
"""Bytes a token: its position in 32 bits, and in 64 each where its key and its value go in the cache
(`build_inp_pos` there, `build_input_k_idxs` and `build_input_v_idxs` of src/llama-kv-cache.cpp)."""


def compute_bytes(model: ModelFile, context: int) -> int:
    """Bytes of llama.cpp's compute buffer for a batch of `BATCH` tokens; a shorter context has a smaller one.

    The buffer is as large as its fullest moment, in a layer's feed-forward part (`graph` of src/models/llama.cpp). Of
    the feed-forward width three rows a token are held then: gate, up, and their product, which is not made in place
    (`ggml_op_can_inplace` of ggml/src/ggml-alloc.c). Of the embedding's width one is, the layer's input for the sum
    behind it; three more are places that the attention part has left, apart from one another, and too small for a row
    of the feed-forward width where that is more than twice the embedding's, as it usually is: elsewhere this is an
    upper bound. To these come what the whole graph reads, the mask and `_INPUTS`. Left out are the logits of the
    last tokens, whose time is another: they count with a vocabulary far larger than the model alone.
    """
    name = model.metadata.get("general.architecture", "")
    wide, narrow = (int(model.metadata.get(f"{name}.{key}", 0)) for key in ("feed_forward_length", "embedding_length"))
    return BATCH * (_ACTIVATION * (3 * wide + 4 * narrow) + _MASK * context + _INPUTS)


def model_bytes(model: ModelFile, context: int, kv_type: str = "f16") -> int:
    """Bytes of the weights, a KV cache of `context` tokens and the compute buffers."""
    return model.tensor_bytes + model.kv_cache_bytes(context, kv_type) + compute_bytes(model, context)


def process_bytes(model: ModelFile, context: int, kv_type: str = "f16") -> int:
    """Peak resident bytes of a process that loads the model and reads one batch."""
    return PROCESS + model_bytes(model, context, kv_type)
