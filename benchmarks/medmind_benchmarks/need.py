"""How much memory a model will take in a process of its own, told from its header. Knows no machine, loads nothing.

Repacked weights take the place of mapped ones, whose pages the system can take back: they are counted once.
"""

from medmind_benchmarks.cell import BATCH
from medmind_benchmarks.model_file import ModelFile

PROCESS = 56 * 2**20
"""Resident bytes of Python, the libraries and a vocabulary: 54 to 60 MiB in the committed results."""
_ACTIVATION = 4
_MASK = 2


def compute_bytes(model: ModelFile, context: int) -> int:
    """Bytes of llama.cpp's compute buffers for a batch of `BATCH` tokens.

    Three rows of the feed-forward width and four of the embedding's a token in f32, and the f16 attention mask; fitted
    to what llama.cpp reports for medmind-base and for a 7B of Mistral's shape at contexts of 512 to 8,192 tokens.
    """
    name = model.metadata.get("general.architecture", "")
    wide, narrow = (int(model.metadata.get(f"{name}.{key}", 0)) for key in ("feed_forward_length", "embedding_length"))
    return BATCH * (_ACTIVATION * (3 * wide + 4 * narrow) + _MASK * context)


def model_bytes(model: ModelFile, context: int, kv_type: str = "f16") -> int:
    """Bytes of the weights, a KV cache of `context` tokens and the compute buffers."""
    return model.tensor_bytes + model.kv_cache_bytes(context, kv_type) + compute_bytes(model, context)


def process_bytes(model: ModelFile, context: int, kv_type: str = "f16") -> int:
    """Peak resident bytes of a process that loads the model and reads one batch."""
    return PROCESS + model_bytes(model, context, kv_type)
