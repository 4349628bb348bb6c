"""The type of every tensor against llama.cpp's dry run, over shapes that no real model has."""

import ctypes
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmind import llama
from medmind.errors import MedmindError
from medmind_convert import quants
from medmind_convert.type_choice import Dimensions, Shaped, choose, fallback, requires_imatrix

CASES: dict[str, dict[str, Any]] = {
    "gqa of 4": {"layers": 8, "heads": 8, "heads_kv": 2},
    "gqa of 2": {"layers": 2, "heads": 4, "heads_kv": 2, "tied": True},
    "mha": {"layers": 16, "heads": 4, "heads_kv": 4},
    "mqa": {"layers": 3, "heads": 8, "heads_kv": 1, "tied": True},
    "36 layers": {"layers": 36, "heads": 4, "heads_kv": 2, "tied": True},
    "35 layers": {"layers": 35, "heads": 4, "heads_kv": 1},
    "rows of 96": {"layers": 9, "heads": 3, "heads_kv": 3, "hidden": 96, "ffn": 512},
    "rows of 160 down": {"layers": 8, "heads": 4, "heads_kv": 2, "ffn": 160},
    "rows of 80": {"layers": 2, "heads": 4, "heads_kv": 2, "hidden": 80, "ffn": 48, "tied": True},
    "rows of 64": {"layers": 4, "heads": 4, "heads_kv": 4, "hidden": 64, "ffn": 384},
    "a 70B's 80": {"layers": 80, "heads": 8, "heads_kv": 1},
    "a 65B's 80": {"layers": 80, "heads": 2, "heads_kv": 2, "tied": True},
}


FAST = ("gqa of 4", "mqa", "rows of 96", "rows of 80")
"""Those of the default suite: all rules but the ones that need many layers."""


def tensors_of(layers: int, heads: int, heads_kv: int, hidden: int = 256, ffn: int = 512, tied: bool = False) -> Any:
    kv = hidden // heads * heads_kv
    found = {"token_embd.weight": (64, hidden), "output_norm.weight": (hidden,)}
    if not tied:
        found["output.weight"] = (64, hidden)
    for i in range(layers):
        found |= {f"blk.{i}.{name}.weight": (hidden,) for name in ("attn_norm", "ffn_norm")}
        found |= {f"blk.{i}.{name}.weight": (hidden, hidden) for name in ("attn_q", "attn_output")}
        found |= {f"blk.{i}.{name}.weight": (kv, hidden) for name in ("attn_k", "attn_v")}
        found |= {f"blk.{i}.{name}.weight": (ffn, hidden) for name in ("ffn_gate", "ffn_up")}
        found[f"blk.{i}.ffn_down.weight"] = (hidden, ffn)
        found[f"blk.{i}.attn_q.bias"] = (hidden,)
    return [Shaped(name, shape) for name, shape in found.items()]


def write_empty(path: Path, case: dict[str, Any], kind: str = "BF16") -> Path:
    """A GGUF of these tensors, header and holes: a dry run reads no data."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(case["layers"])
    writer.add_context_length(64)
    writer.add_embedding_length(case.get("hidden", 256))
    writer.add_feed_forward_length(case.get("ffn", 512))
    writer.add_head_count(case["heads"])
    writer.add_head_count_kv(case["heads_kv"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("none")
    total = 0
    for tensor in tensors_of(**case):
        vector = len(tensor.shape) == 1
        size = int(np.prod(tensor.shape)) * (4 if vector else 2)
        raw = gguf.GGMLQuantizationType.F32 if vector else gguf.GGMLQuantizationType[kind]
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=raw)
        total += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.fout[0].truncate(writer.fout[0].tell() + total + 64)
    writer.close()
    return path


def dry_run(gguf: Path, ftype: int, *, imatrix: bool) -> tuple[int, dict[str, str], str]:
    """Exit code, tensor -> type where it changes, and the log."""
    llama_cpp = llama.package()

    log: list[str] = []
    callback = llama_cpp.llama_log_callback(lambda level, text, data: log.append(text.decode()))
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.dry_run = ftype, True
    entry = llama_cpp.llama_model_imatrix_data
    entries = (entry * 2)(entry(b"other", (ctypes.c_float * 1)(1.0), 1), entry(None, None, 0))
    if imatrix:
        params.imatrix = entries
    code = llama_cpp.llama_model_quantize(str(gguf).encode(), b"/nowhere", params)
    llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), ctypes.c_void_p(0))
    text = "".join(log)
    found = re.findall(r"\] (\S+)\s+- \[.*?type =\s+\S+, size = .*? MiB(?: -> .*? MiB \((\w+)\))?", text)
    return code, {name: kind.upper() for name, kind in found}, text


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("empty")
    return _Empty(folder)


class _Empty(dict[str, Path]):
    """Case -> its file, written when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __missing__(self, case: str) -> Path:
        self[case] = write_empty(self.folder / f"{len(self)}.gguf", CASES[case])
        return self[case]


@pytest.mark.parametrize("imatrix", [False, True], ids=["without", "with imatrix"])
@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.reference) for case in CASES]
)
def test_every_file_type_chooses_as_llama_cpp_does(case: str, imatrix: bool, empty: dict[str, Path]):
    options = CASES[case]
    tensors = tensors_of(**options)
    dimensions = Dimensions(options["layers"], options["heads"], options["heads_kv"])
    compared = 0
    for quant in quants.QUANTS.values():
        code, expected, log = dry_run(empty[case], quant.ftype, imatrix=imatrix)
        if code != 0:
            assert "no tensor type fallback is defined" in log
            with pytest.raises(MedmindError, match=r"llama\.cpp has no substitute"):
                choose(quant, tensors, dimensions, native="BF16", imatrix=imatrix)
            continue
        chosen = choose(quant, tensors, dimensions, native="BF16", imatrix=imatrix)
        unchanged = {tensor.name: "F32" if len(tensor.shape) == 1 else "BF16" for tensor in tensors}
        assert list(chosen) == list(expected)  # llama-quantize's order
        assert chosen == {name: kind or unchanged[name] for name, kind in expected.items()}, quant.name
        wants = any(requires_imatrix(name, kind, quant) for name, kind in chosen.items())
        if not imatrix:
            assert wants == ("will require an imatrix" in log), quant.name
        compared += 1
    assert compared > 25


def test_rows_that_fit_nothing_become_f16_and_those_without_a_substitute_are_refused():
    assert fallback("Q4_K", 256) == "Q4_K"
    assert fallback("Q4_K", 96) == "Q5_0"
    assert fallback("Q4_K", 80) == fallback("Q8_0", 80) == "F16"
    with pytest.raises(MedmindError, match="rows of 64 values cannot be stored as Q1_0"):
        fallback("Q1_0", 64)
