"""How long a conversion computes on this machine: what each type costs beside Q4_K, and Q4_K itself, timed here.

Some types build tables for seconds before their first row, so that timing each would take longer than a plan may.
"""

import time
from collections.abc import Mapping

import numpy as np

from medmind_convert import ggml

_PLAIN: Mapping[str, float] = {
    **{"Q4_0": 2, "Q4_1": 3, "Q5_0": 5, "Q5_1": 4, "Q8_0": 7, "Q2_K": 78, "Q3_K": 21, "Q4_K": 82, "Q5_K": 71},
    **{"Q6_K": 44, "IQ3_XXS": 587, "IQ3_S": 419, "IQ4_NL": 396, "IQ4_XS": 261, "TQ1_0": 4, "TQ2_0": 4, "MXFP4": 5},
    **{"Q1_0": 6, "Q2_0": 5, "F32": 1, "F16": 1, "BF16": 1},
}
"""Nanoseconds a value without importance: CPU time of rows of 4,096 values, on one core of an x86-64 server."""
_WEIGHTED: Mapping[str, float] = {
    **{"Q4_0": 41, "Q4_1": 175, "Q5_0": 38, "Q5_1": 188, "Q2_K": 212, "Q3_K": 57, "Q4_K": 190, "Q5_K": 171},
    **{"Q6_K": 40, "IQ2_XXS": 518, "IQ2_XS": 1064, "IQ2_S": 281, "IQ3_XXS": 587, "IQ3_S": 478, "IQ1_S": 210},
    **{"IQ1_M": 194, "IQ4_NL": 247, "IQ4_XS": 252},
}
"""The same with importance, where it differs."""
_TABLES: Mapping[str, float] = {
    **{"IQ1_S": 12.7, "IQ1_M": 12.7, "IQ2_S": 5.7, "IQ2_XS": 2.5, "IQ2_XXS": 1.2, "IQ3_S": 0.26, "IQ3_XXS": 0.12},
}
"""Seconds that a type's tables take before its first row, on one thread."""
_READ, _MERGE = 4.0, 0.35
"""Nanoseconds a value to read and widen it, and to add an adapter's change, for each rank."""
_DIGEST = 1.5
"""Nanoseconds a written byte."""
_ROWS, _COLUMNS, _TRIES = 4, 2048, 3


def measured() -> float:
    """How many times as long as in the tables Q4_K takes here: of some tries the fastest, in this thread's CPU time."""
    values = (np.random.default_rng(0).standard_normal((_ROWS, _COLUMNS)) * 0.02).astype(np.float32)
    kind = ggml.types()["Q4_K"]
    ggml.quantize(values, kind)
    tries = []
    for _ in range(_TRIES):
        began = time.thread_time()
        ggml.quantize(values, kind)
        tries.append(time.thread_time() - began)
    return min(tries) / values.size * 1e9 / _PLAIN["Q4_K"]


def seconds(
    sizes: Mapping[str, int], merged: int, rank: int, written: int, *, weighted: bool, threads: int, scale: float
) -> float:
    """Wall time of the pass over the weights, a disk faster than it assumed.

    Args:
        sizes: ggml type -> weights stored in it.
        merged: weights that an adapter changes.
        rank: of the adapter.
        written: bytes of the file.
        weighted: whether there is an importance matrix.
        threads: that quantize, each on a core of its own.
        scale: of `measured`.
    """
    cost = {**_PLAIN, **_WEIGHTED} if weighted else _PLAIN
    work = sum((cost[kind] + _READ) * count for kind, count in sizes.items()) + _MERGE * rank * merged
    return scale * ((work / threads + _DIGEST * written) / 1e9 + max(_TABLES.get(kind, 0.0) for kind in sizes))
