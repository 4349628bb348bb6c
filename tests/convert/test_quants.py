"""The quant table against the installed llama.cpp: its constants, its sizes at 7B shape, its need of an imatrix."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from medmind import llama
from medmind.errors import MedmindError
from medmind_convert import quants

NO_FILE_TYPE = {"GUESSED", "MOSTLY_NVFP4"}
"""Constants that are no choice: a marker, and a type that llama_ftype_get_default_type does not know."""


def dry_run(gguf: Path, ftype: int) -> tuple[int, str]:
    llama_cpp = llama.package()

    log: list[str] = []
    callback = llama_cpp.llama_log_callback(lambda level, text, data: log.append(text.decode()))
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.dry_run = ftype, True
    code = llama_cpp.llama_model_quantize(str(gguf).encode(), b"/nowhere", params)
    llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), ctypes.c_void_p(0))
    return code, "".join(log)


@pytest.fixture(scope="module")
def mistral_7b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse GGUF of Mistral-7B-v0.3's shape: header and holes, for dry runs that read no data."""
    import gguf

    path = tmp_path_factory.mktemp("shape") / "7b.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(32)
    writer.add_context_length(32768)
    writer.add_embedding_length(4096)
    writer.add_feed_forward_length(14336)
    writer.add_head_count(32)
    writer.add_head_count_kv(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(32768)
    writer.add_tokenizer_model("none")
    shapes = {"token_embd": (32768, 4096), "output": (32768, 4096), "output_norm": (4096,)}
    for i in range(32):
        shapes |= {f"blk.{i}.{n}": (4096,) for n in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{i}.{n}": (4096, 4096) for n in ("attn_q", "attn_output")}
        shapes |= {f"blk.{i}.{n}": (1024, 4096) for n in ("attn_k", "attn_v")}
        shapes |= {f"blk.{i}.{n}": (14336, 4096) for n in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{i}.ffn_down"] = (4096, 14336)
    total = 0
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.BF16
        size = int(np.prod(shape)) * (4 if len(shape) == 1 else 2)
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype(np.float32), size, raw_dtype=kind)
        total += size
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.fout[0].truncate(writer.fout[0].tell() + total + 64)
    writer.close()
    return path


def test_the_table_holds_every_file_type_of_the_installed_llama_cpp():
    llama_cpp = llama.package()

    constants = {
        name.removeprefix("LLAMA_FTYPE_"): getattr(llama_cpp, name)
        for name in dir(llama_cpp)
        if name.startswith("LLAMA_FTYPE_")
    }
    expected = {
        name.removeprefix("MOSTLY_").removeprefix("ALL_").lower(): number
        for name, number in constants.items()
        if name not in NO_FILE_TYPE
    }
    assert {quant.name: quant.ftype for quant in quants.QUANTS.values()} == expected


@pytest.mark.parametrize("name", sorted(quants.QUANTS))
def test_size_and_need_of_an_imatrix_are_llama_cpps_own_at_7b_shape(name: str, mistral_7b: Path):
    quant = quants.QUANTS[name]
    code, log = dry_run(mistral_7b, quant.ftype)
    assert code == 0
    found = re.search(r"quant size\s*=.*\(([\d.]+) BPW\)", log)
    assert found is not None
    assert float(found[1]) == quant.bits
    assert ("will require an imatrix" in log) == quant.needs_imatrix


@pytest.mark.parametrize("name", sorted(NO_FILE_TYPE))
def test_constants_left_out_are_ones_llama_cpp_refuses(name: str, mistral_7b: Path):
    llama_cpp = llama.package()

    assert dry_run(mistral_7b, getattr(llama_cpp, f"LLAMA_FTYPE_{name}"))[0] != 0


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("Q4_K_M", "q4_k_m"), ("q4-k-m", "q4_k_m"), ("Q5_K", "q5_k_m"), ("FP16", "f16"), ("BF16", "bf16")],
)
def test_any_case_and_llama_quantizes_aliases_are_understood(spelling: str, name: str):
    assert quants.find(spelling).name == name


@pytest.mark.parametrize(
    ("wrong", "near"), [("q4_km", "q4_k_m"), ("q8", "q8_0"), ("bf-16", "bf16"), ("iq4xs", "iq4_xs")]
)
def test_an_unknown_name_suggests_the_nearest_and_lists_all(wrong: str, near: str):
    with pytest.raises(MedmindError) as raised:
        quants.find(wrong)
    assert f"did you mean {near}?" in raised.value.hint
    assert all(name in raised.value.hint for name in quants.QUANTS)


def test_types_with_commas_between_are_told_to_be_words_of_their_own():
    with pytest.raises(MedmindError, match="several quantizations in one word") as raised:
        quants.find("q4_k_m,Q8_0")
    assert raised.value.hint == "write q4_k_m Q8_0"


@pytest.mark.parametrize("name", [quant.name for quant in quants.QUANTS.values() if quant.needs_imatrix])
def test_a_type_that_needs_an_imatrix_points_to_one_that_does_not(name: str):
    near = quants.smallest_without_imatrix(quants.QUANTS[name])
    assert not near.needs_imatrix
    assert near.bits >= quants.QUANTS[name].bits


def test_a_type_named_twice_is_converted_once():
    assert [quant.name for quant in quants.parse(["q4_k", "q8_0", "Q4_K_M"])] == ["q4_k_m", "q8_0"]
