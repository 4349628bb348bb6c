"""Every type, byte for byte, against the usual route: PEFT's merge, convert_hf_to_gguf.py, llama-quantize."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_tools import run_tool, tool
from tiny_bases import Shape, all_linear, write_adapter

from medmind.errors import MedmindError
from medmind_convert import quants
from medmind_convert.conversion import Conversion
from medmind_convert.convert import Options, convert
from medmind_convert.imatrix import read_imatrix, weighting
from medmind_convert.source import find

pytestmark = pytest.mark.reference

TYPES = [
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_0", "q5_1", "q4_k_m", "q4_k_s", "q4_0", "q4_1",
    "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "iq4_xs", "iq4_nl", "iq3_m", "iq3_s",
]  # fmt: skip
NEEDY = ["iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "q2_k_s"]
SHAPES = {
    "gqa": {"hidden": 256, "ffn": 512, "layers": 5},
    "tied, rows not of 256": {"hidden": 96, "ffn": 160, "heads": 3, "heads_kv": 3, "tied": True, "layers": 2},
}
REFUSING: dict[str, dict[str, Any]] = {
    **SHAPES,
    "36 layers, mha": {"hidden": 256, "ffn": 256, "heads": 2, "heads_kv": 2, "layers": 36},
    "3 layers, gqa of 4, tied": {"hidden": 256, "ffn": 512, "heads": 8, "tied": True, "layers": 3},
    "mqa, f16": {"hidden": 256, "ffn": 768, "heads_kv": 1, "layers": 4, "dtype": "F16"},
    "f32, gqa of 2": {"hidden": 256, "ffn": 512, "layers": 2, "dtype": "F32"},
}
OUT_TYPES = {"BF16": "bf16", "F16": "f16", "F32": "f32"}


def merged_by_peft(base: Path, adapter: Path, out: Path) -> Path:
    """PEFT's merge in the base's own type, with the tokenizer beside it."""
    import shutil

    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
    for file in base.glob("token*"):
        shutil.copy(file, out)
    return out


def converted_by_llama_cpp(model: Path, out: Path, kind: str = "bf16") -> Path:
    folder = tool("llama-quantize").parents[1]
    subprocess.run(
        [sys.executable, folder / "convert_hf_to_gguf.py", model, "--outtype", kind, "--outfile", out],
        check=True, capture_output=True,
        env={"PYTHONPATH": str(folder / "gguf-py"), "PATH": "", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return out


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    import gguf

    return {t.name: (t.tensor_type.name, np.asarray(t.data).tobytes()) for t in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("importance", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_type_has_the_bytes_of_the_usual_route(
    shape: str, importance: bool, make_base: Callable[..., Path], tmp_path: Path
):
    dimensions = SHAPES[shape]
    base = make_base(**dimensions)
    adapter = write_adapter(tmp_path / "lora", all_linear(Shape(**dimensions)))
    plain = converted_by_llama_cpp(merged_by_peft(base, adapter, tmp_path / "merged"), tmp_path / "theirs.bf16.gguf")
    given: list[str] = []
    imatrix = None
    if importance:
        text = tmp_path / "text.txt"
        text.write_text("the heart and the blood and the lung and the bone " * 400)
        run_tool("llama-imatrix", "-m", plain, "-f", text, "-o", tmp_path / "imatrix.gguf", "-c", "128", "-t", "1")
        given, imatrix = ["--imatrix", str(tmp_path / "imatrix.gguf")], read_imatrix(tmp_path / "imatrix.gguf")
    names = [*TYPES, *(NEEDY if importance else [])]
    source = find(None, base_name=str(base), adapter=adapter, out=tmp_path / "out", name="ours")
    results, _ = convert(source, quants.parse(names), Options(provenance=False, imatrix=imatrix))
    for result in results:
        theirs = tmp_path / f"quantized.{result.quant.name}.gguf"
        run_tool("llama-quantize", *given, plain, theirs, result.quant.name, "1")
        ours, expected = tensors(result.file), tensors(theirs)
        assert list(ours) == list(expected)
        assert [name for name in ours if ours[name] != expected[name]] == [], result.quant.name


def test_a_whole_file_is_llama_cpps_own(make_base: Callable[..., Path], tmp_path: Path):
    base = make_base(hidden=256, ffn=512, layers=5)
    plain = converted_by_llama_cpp(base, tmp_path / "theirs.bf16.gguf")
    run_tool("llama-quantize", plain, tmp_path / "theirs.gguf", "q4_k_m", "1")
    results, _ = convert(find(str(base), out=tmp_path / "out"), quants.parse(["q4_k_m"]), Options(provenance=False))
    assert results[0].file.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.parametrize("shape", REFUSING)
def test_a_type_is_refused_without_a_matrix_exactly_where_llama_quantize_refuses(
    shape: str, make_base: Callable[..., Path], tmp_path: Path
):
    """Every type there is: llama-quantize's dry run says of each whether it would, and does so where it says it."""
    dimensions = REFUSING[shape]
    base = make_base(**dimensions)
    kind = OUT_TYPES[dimensions.get("dtype", "BF16")]
    plain = converted_by_llama_cpp(base, tmp_path / "plain.gguf", kind)
    conversion = Conversion(find(str(base)))
    refused = []
    for quant in quants.QUANTS.values():
        if quant.name in {"f32", "f16", "bf16"}:
            continue
        try:
            conversion.types(quant, imatrix=False)
            error = ""
        except MedmindError as raised:
            error = str(raised)
        if "no substitute" in error:
            with pytest.raises(subprocess.CalledProcessError):
                run_tool("llama-quantize", "--dry-run", plain, quant.name, "1")
            continue
        told = run_tool("llama-quantize", "--dry-run", plain, quant.name, "1")
        assert ("needs an importance matrix" in error) == ("require an imatrix" in told.stdout + told.stderr), (
            quant.name
        )
        refused += [quant.name] * bool(error)
    assert bool(refused) == (dimensions["hidden"] % 256 == 0)  # what replaces a type for other rows needs none
    for name in refused[-1:]:
        with pytest.raises(subprocess.CalledProcessError):
            run_tool("llama-quantize", plain, tmp_path / "out.gguf", name, "1")


def test_a_whole_file_weighted_by_a_matrix_is_llama_cpps_own(make_base: Callable[..., Path], tmp_path: Path):
    base = make_base(hidden=256, ffn=512, layers=5)
    plain = converted_by_llama_cpp(base, tmp_path / "theirs.bf16.gguf")
    (tmp_path / "text.txt").write_text("the heart and the blood and the lung and the bone " * 100)
    matrix = tmp_path / "imatrix.gguf"
    run_tool("llama-imatrix", "-m", plain, "-f", tmp_path / "text.txt", "-o", matrix, "-c", "128", "-t", "1")
    run_tool("llama-quantize", "--imatrix", matrix, plain, tmp_path / "theirs.gguf", "q4_k_m", "1")
    found = read_imatrix(matrix)
    options = Options(provenance=False, imatrix=found, weighting=weighting(matrix, found))
    results, _ = convert(find(str(base), out=tmp_path / "out"), quants.parse(["q4_k_m"]), options)
    assert results[0].file.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
