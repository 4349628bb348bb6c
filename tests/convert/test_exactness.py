"""Every type, byte for byte, against the usual route: PEFT's merge, convert_hf_to_gguf.py, llama-quantize."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from llama_tools import run_tool, tool
from tiny_bases import Shape, all_linear, write_adapter, write_base

from medmind.errors import MedmindError
from medmind_convert import quants
from medmind_convert.conversion import Conversion
from medmind_convert.convert import Options, convert
from medmind_convert.imatrix import read_imatrix, weighting
from medmind_convert.source import find

pytestmark = pytest.mark.reference

EVERY = (
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_0", "q5_1", "q4_k_m", "q4_k_s", "q4_0", "q4_1",
    "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "iq4_xs", "iq4_nl", "iq3_m", "iq3_s",
)  # fmt: skip
NEEDY = ("iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "q2_k_s")
BY_LAYER = ("q5_k_m", "q4_k_m", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "iq4_xs", "iq4_nl")
"""Types whose tensors depend on the number of the layer and on how many there are (`use_more_bits`)."""
BY_LAYER_WEIGHTED = ("q5_k_m", "q4_k_m", "q3_k_m", "q2_k", "iq4_xs", "iq3_m", "iq3_s", *NEEDY[:-1])


@dataclass(frozen=True)
class Case:
    """A shape, the types that are compared, and those that are compared under a matrix."""

    shape: Shape
    plain: tuple[str, ...]
    weighted: tuple[str, ...]


CASES = {
    "5 layers, mha, odd vocabulary": Case(
        Shape(hidden=256, ffn=256, heads=2, heads_kv=2, layers=5, vocab=401), EVERY, (*EVERY[3:], *NEEDY)
    ),
    "36 layers, gqa of 4": Case(
        Shape(hidden=256, ffn=256, heads=4, heads_kv=1, layers=36), BY_LAYER, BY_LAYER_WEIGHTED
    ),
    "2 layers, tied, no rows of 256, odd vocabulary": Case(
        Shape(hidden=96, ffn=160, heads=3, heads_kv=3, tied=True, vocab=385), EVERY, (*EVERY[3:], *NEEDY)
    ),
    "3 layers, gqa of 4, tied, odd vocabulary": Case(
        Shape(hidden=256, ffn=512, heads=8, layers=3, tied=True, vocab=391),
        ("q8_0", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k", "iq4_xs"),
        ("q5_k_s", "q4_k_m", "q3_k_l", "q2_k_s", "iq3_xxs", "iq4_nl"),
    ),
    "3 layers, mqa, f16": Case(
        Shape(hidden=256, ffn=512, heads_kv=1, layers=3, dtype="F16"),
        ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_s"),
        ("q6_k", "q5_k_m", "q4_k_s", "q3_k_m", "iq3_s"),
    ),
    "2 layers, f32, some rows of 256": Case(
        Shape(hidden=256, ffn=352, dtype="F32", vocab=383),
        ("f32", "f16", "bf16", "q6_k", "q5_k_m", "q4_k_m", "q3_k_l", "q2_k", "iq4_xs", "iq3_s"),
        ("q5_k_s", "q4_k_m", "q3_k_m", "q2_k", "iq4_xs", "iq3_xs"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Route:
    """The usual route up to its unquantized file, and a matrix collected over that.

    Attributes:
        base: the base.
        adapter: over all of its linear layers.
        plain: what PEFT's merge of the two becomes in convert_hf_to_gguf.py.
        matrix: llama-imatrix's.
    """

    base: Path
    adapter: Path
    plain: Path
    matrix: Path


@pytest.fixture(scope="module")
def route_of(spm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Route]:
    """The route of a case, gone once."""

    @cache
    def make(case: str) -> Route:
        shape = CASES[case].shape
        folder = tmp_path_factory.mktemp("route")
        base = write_base(folder / "base", shape, spm)
        adapter = write_adapter(folder / "lora", all_linear(shape))
        plain = converted_by_llama_cpp(merged_by_peft(base, adapter, shape, folder / "merged"), folder, shape)
        return Route(base, adapter, plain, collected(plain, folder))

    return make


def merged_by_peft(base: Path, adapter: Path, shape: Shape, out: Path) -> Path:
    """PEFT's merge in the base's own type, with the tokenizer beside it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[shape.dtype]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
    for file in base.glob("token*"):
        shutil.copy(file, out)
    return out


def converted_by_llama_cpp(model: Path, folder: Path, shape: Shape) -> Path:
    tools, out = tool("llama-quantize").parents[1], folder / "theirs.gguf"
    subprocess.run(
        [sys.executable, tools / "convert_hf_to_gguf.py", model, "--outtype", shape.dtype.lower(), "--outfile", out],
        check=True, capture_output=True,
        env={"PYTHONPATH": str(tools / "gguf-py"), "PATH": "", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return out


def collected(plain: Path, folder: Path) -> Path:
    text, out = folder / "text.txt", folder / "imatrix.gguf"
    text.write_text("the heart and the blood and the lung and the bone " * 100)
    run_tool("llama-imatrix", "-m", plain, "-f", text, "-o", out, "-c", "128", "-t", "1")
    return out


def quantized_by_llama_cpp(names: Sequence[str], plain: Path, folder: Path, *given: str | Path) -> dict[str, Path]:
    """Each type by a process of its own, two at a time: most of the time is llama.cpp's, and its tables'."""

    def make(name: str) -> Path:
        out = folder / f"theirs.{name}.gguf"
        run_tool("llama-quantize", *given, plain, out, name, "1")
        return out

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(make, names), strict=True))


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    import gguf

    return {t.name: (t.tensor_type.name, np.asarray(t.data).tobytes()) for t in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("importance", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("case", CASES)
def test_every_type_has_the_bytes_of_the_usual_route(
    case: str, importance: bool, route_of: Callable[[str], Route], tmp_path: Path
):
    route = route_of(case)
    names = CASES[case].weighted if importance else CASES[case].plain
    given = ("--imatrix", route.matrix) if importance else ()
    theirs = quantized_by_llama_cpp(names, route.plain, tmp_path, *given)
    source = find(None, base_name=str(route.base), adapter=route.adapter, out=tmp_path / "out", name="ours")
    imatrix = read_imatrix(route.matrix) if importance else None
    results, _ = convert(source, quants.parse(list(names)), Options(provenance=False, imatrix=imatrix))
    assert [result.quant.name for result in results] == list(names)
    for result in results:
        ours, expected = tensors(result.file), tensors(theirs[result.quant.name])
        assert list(ours) == list(expected)
        assert [name for name in ours if ours[name] != expected[name]] == [], result.quant.name


@pytest.mark.parametrize("case", CASES)
def test_a_type_is_refused_without_a_matrix_exactly_where_llama_quantize_refuses(
    case: str, route_of: Callable[[str], Route], tmp_path: Path
):
    """Every type there is: llama-quantize's dry run says of each whether it would, and does so where it says it."""
    route = route_of(case)
    conversion = Conversion(find(str(route.base)))
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
                run_tool("llama-quantize", "--dry-run", route.plain, quant.name, "1")
            continue
        told = run_tool("llama-quantize", "--dry-run", route.plain, quant.name, "1")
        assert ("needs an importance matrix" in error) == ("require an imatrix" in told.stdout + told.stderr), (
            quant.name
        )
        refused += [quant.name] * bool(error)
    assert bool(refused) == (CASES[case].shape.hidden % 256 == 0)  # what replaces a type for other rows needs none
    for name in refused[-1:]:
        with pytest.raises(subprocess.CalledProcessError):
            run_tool("llama-quantize", route.plain, tmp_path / "out.gguf", name, "1")


def test_a_whole_file_is_llama_cpps_own_and_so_is_one_weighted_by_a_matrix(spm: Path, tmp_path: Path):
    shape = Shape(hidden=256, ffn=512, layers=5)
    base = write_base(tmp_path / "base", shape, spm)
    plain = converted_by_llama_cpp(base, tmp_path, shape)
    matrix = collected(plain, tmp_path)
    found = read_imatrix(matrix)
    for name, given, options in (
        ("plain", (), Options(provenance=False)),
        (
            "weighted", ("--imatrix", matrix),
            Options(provenance=False, imatrix=found, weighting=weighting(matrix, found)),
        ),
    ):  # fmt: skip
        theirs = quantized_by_llama_cpp(["q4_k_m"], plain, tmp_path, *given)["q4_k_m"]
        results, _ = convert(find(str(base), out=tmp_path / name), quants.parse(["q4_k_m"]), options)
        assert results[0].file.read_bytes() == theirs.read_bytes(), name
