"""What llama.cpp would end the whole process over, found in a file beforehand: it asserts and throws where Python can
catch nothing.

Knows headers; no model in memory.
"""

import math

from medmind import gguf_header
from medmind.errors import MedmindError
from medmind_runtime.engine import hyperparameters

_TOKENS = "tokenizer.ggml.tokens"


def demand_usable(header: gguf_header.Header) -> None:
    """Refuse a file whose metadata llama.cpp takes for granted.

    Sources: `llama_vocab::impl::load` and `byte_to_token` of llama-vocab.cpp, `ggml_compute_forward_rms_norm`.

    Raises:
        MedmindError: two tokens are the same; a byte has no token, so that any text with it could not be read; the
            constant of the norms is none.
    """
    tokens = gguf_header.strings(header, _TOKENS)
    named = [token for token in tokens if token]  # llama.cpp gives the others names of their own
    known = set(named)
    if len(known) < len(named):
        raise MedmindError(f"{header.path} is damaged: several of its tokens are the same", "convert the model again")
    if header.scalars.get("tokenizer.ggml.model") == "llama" and tokens:
        missing = [byte for byte in range(256) if b"<0x%02X>" % byte not in known and bytes([byte]) not in known]
        if missing:
            raise MedmindError(
                f"{header.path} cannot read every text: its vocabulary has no token for {len(missing)} of 256 bytes, "
                f"the first of them 0x{missing[0]:02X}",
                "convert the model again",
            )
    epsilon = gguf_header.number(header, hyperparameters.key(header.scalars, "attention.layer_norm_rms_epsilon"))
    if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
        raise MedmindError(
            f"{header.path} is damaged: the constant of its norms is {epsilon}", "convert the model again"
        )
