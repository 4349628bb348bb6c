"""Anonymous memory of a conversion at most: libraries and tokenizer, and the blocks of rows in work. Reads nothing.

Figures of the libraries were measured with the versions of constraints.txt on Linux; pages of mapped files are not
counted, which the system takes back at any time.
"""

from collections.abc import Mapping

from medmind_convert import ggml
from medmind_convert import nf4 as nf4_blocks
from medmind_convert.conversion import Conversion
from medmind_convert.merge import BLOCK
from medmind_convert.one_pass import AHEAD

_LIBRARIES = 56 << 20
"""Python with numpy, llama.cpp, gguf and transformers' tokenizers."""
_TOKEN = 2250
"""Bytes a token: in the tokenizer, its merges, the lists of the vocabulary and the file's header."""
_MERGED, _PLAIN, _NF4 = 14, 8, 25
"""Bytes a value while a block is in work: as stored, as float32, and with an adapter the change and its rounding."""
_SCALING = 36
"""Bytes a scale of NF4 while those of a matrix are quantized: a thread at a time, each of which keeps the memory."""


def peak(conversion: Conversion, types: Mapping[str, str], *, threads: int) -> int:
    """Bytes at most while a file of these types is made.

    Args:
        conversion: the source.
        types: tensor -> ggml type.
        threads: that merge and quantize.
    """
    arch = conversion.architecture
    deltas = conversion.adapter.deltas if conversion.adapter else {}
    nf4 = conversion.onto == "nf4"
    per_value = _MERGED if deltas and not nf4 else _PLAIN
    kinds = ggml.types()
    matrices = [placement for placement in arch.placements if placement.is_matrix]
    stored = max(
        kinds[types[p.target]].row_bytes(p.shape[1]) / p.shape[1] for p in matrices if types[p.target] in kinds
    )
    factors = max((delta.a.nbytes + delta.b.nbytes for delta in deltas.values()), default=0)
    waiting = AHEAD * threads + 1
    work = threads * BLOCK * per_value + int((waiting + threads) * BLOCK * stored)
    if nf4:  # whose blocks take so long that none waits for the writing; embedding and output layer are merged plainly
        layers = [p.shape[0] * p.shape[1] for p in matrices if p.source.endswith("_proj.weight")]
        scales, block = max(layers) // nf4_blocks.BLOCK, min(BLOCK, max(layers)) * _NF4
        work = max(work, threads * max(block, _SCALING * scales))
    return _LIBRARIES + _TOKEN * arch.vocab + work + 2 * factors
