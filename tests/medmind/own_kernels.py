"""What medmind's own files in llama.cpp compute, called through ggml itself.

As a program: `own_kernels.py FOLDER LIB`, of llama_cpp's libraries and of one libggml-cpu, writes as JSON what
tests/medmind/test_own_kernels.py asks about.
"""

import ctypes
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from own_attention import attention, cases, exactly, mask_of, tensors
from own_ggml import Ggml
from own_products import products


def main(folder: Path, cpu: Path) -> None:
    """Errors of each case of attention, whether a token has the bits that it has alone in another cache; products."""
    ggml = Ggml(folder, cpu)
    ggml.cpu.medmind_attention.restype = ctypes.c_bool
    errors, alike = {}, {}
    for case in cases():
        given = tensors(case)
        mask = mask_of(case)
        found = attention(ggml, case, *given, mask)
        errors[repr(case)] = float(np.abs(found - exactly(case, *given, mask)).max())
        if case.tokens > 1 and mask is not None:
            q, k, v = given
            one = replace(case, tokens=1, places=case.places + 70)
            k, v = (np.concatenate([part, part[:, :1].repeat(70, 1)], 1) for part in (k, v))
            wide = np.pad(mask, ((0, 0), (0, 0), (0, 70)), constant_values=-np.inf)
            singles = [attention(ggml, one, q[:, at : at + 1], k, v, wide[:, at : at + 1]) for at in range(case.tokens)]
            alike[repr(case)] = bool((np.concatenate(singles) == found).all())
    told = {"own": bool(ggml.cpu.medmind_attention()), "errors": errors, "alike": alike, "products": products(ggml)}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
