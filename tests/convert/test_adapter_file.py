"""The adapter as a GGUF: llama.cpp laying it over the base computes what the merged model computes."""

import ctypes
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import Shape, all_linear, write_adapter, write_base, write_run
from typer.testing import CliRunner

from medmind import gguf_header, llama
from medmind.artifacts import adapter_digest
from medmind.errors import MedmindError
from medmind_convert import adapter_file, integrity, quants
from medmind_convert.cli import app
from medmind_convert.convert import convert
from medmind_convert.gguf_file import HEADER_DIGEST
from medmind_convert.info import read
from medmind_convert.integrity import HEADER
from medmind_convert.source import find
from medmind_convert.weights import Dtype

TOKENS = [1, 30, 71, 12, 99, 200, 45, 7]
NOISE = 2e-3
"""llama.cpp rounds to half precision inside attention: so far it is from float64 itself."""
SHAPE = Shape(dtype="F32")


def logits(model: Path, adapter: Path | None = None) -> np.ndarray:
    """The last position's logits, the adapter hot-loaded."""
    lib = llama.load()
    params = lib.llama_model_default_params()
    handle = lib.llama_model_load_from_file(str(model).encode(), params)
    assert handle
    settings = lib.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 64, 1, 1
    context = lib.llama_init_from_model(handle, settings)
    if adapter is not None:
        lora = lib.llama_adapter_lora_init(handle, str(adapter).encode())
        assert lora, llama.log.first_error()
        adapters = (lib.llama_adapter_lora_p_ctypes * 1)(lora)
        assert lib.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0
    tokens = (lib.llama_token * len(TOKENS))(*TOKENS)
    assert lib.llama_decode(context, lib.llama_batch_get_one(tokens, len(TOKENS))) == 0
    found = np.array(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (SHAPE.vocab,)))
    lib.llama_free(context)
    lib.llama_model_free(handle)
    return found


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"self_attn.q_proj": 2, "layers.1.mlp.up_proj": 8},
        "alpha_pattern": {"v_proj": 31, "layers.0.mlp.down_proj": 3},
        "use_rslora": True,
    },
}


def ranks_of(config: dict[str, Any], modules: dict[str, tuple[int, int]]) -> dict[str, int]:
    return {
        module: rank
        for module in modules
        for end, rank in config.get("rank_pattern", {}).items()
        if module.endswith(end)
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_laid_over_the_base_it_is_the_merged_model(variant: str, spm: Path, tmp_path: Path):
    base = write_base(tmp_path / "base", SHAPE, spm)
    modules = {**all_linear(SHAPE), "lm_head": (SHAPE.vocab, SHAPE.hidden)}
    config = VARIANTS[variant]
    adapter = write_adapter(tmp_path / "lora", modules, ranks=ranks_of(config, modules), **config)
    f32 = quants.parse(["f32"])
    [alone], _ = convert(find(str(base), out=tmp_path, name="base"), f32)
    [merged], _ = convert(find(str(adapter), base_name=str(base), out=tmp_path, name="merged"), f32)
    source = find(str(adapter), base_name=str(base), out=tmp_path, name="hot")

    written = adapter_file.write(source, "F32")

    expected, bare = logits(merged.file), logits(alone.file)
    assert written.modules == len(modules)
    assert np.abs(expected - bare).max() > 0.5
    np.testing.assert_allclose(logits(alone.file, written.file), expected, atol=NOISE)
    half = adapter_file.write(find(str(adapter), base_name=str(base), out=tmp_path, name="half"), "F16")
    assert half.bytes < 0.6 * written.bytes
    np.testing.assert_allclose(logits(alone.file, half.file), expected, atol=20 * NOISE)
    if variant != "plain":  # a scale that got lost would be seen
        path = adapter / "adapter_config.json"
        document = json.loads(path.read_text()) | {"use_rslora": False, "alpha_pattern": {}}
        path.write_text(json.dumps(document))
        lost = adapter_file.write(source, "F32", force=True)
        assert np.abs(logits(alone.file, lost.file) - expected).max() > 50 * NOISE


def test_the_command_writes_it_into_the_run_and_names_its_origin(make_run: Callable[..., Path]):
    run = make_run()
    result = CliRunner().invoke(app, ["adapter", str(run), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    file = Path(document["file"])
    assert file == run / "trial.adapter.gguf"
    assert document["bytes"] == file.stat().st_size
    metadata = read(file)["metadata"]
    manifest = json.loads((run / "medmind.json").read_text())
    assert metadata["general.type"] == "adapter"
    assert metadata["adapter.type"] == "lora"
    assert metadata["medmind.base.digest"] == manifest["base"]["digest"]
    assert metadata["medmind.adapter.digest"] == manifest["adapter"]["digest"]
    with pytest.raises(MedmindError, match="exists already"):
        adapter_file.write(find(str(run)), "F32")
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_it_carries_digests_by_which_a_flipped_bit_is_found(dtype: Dtype, make_run: Callable[..., Path]):
    run = make_run(hidden=36, ffn=60, heads=3, heads_kv=3)  # A of 36 columns ends between two places in f16
    file = adapter_file.write(find(str(run)), dtype).file
    done = CliRunner().invoke(app, ["verify", str(file), "--json"], catch_exceptions=False)
    (model,) = json.loads(done.stdout)["models"]
    assert (model["problem"], model["source"], model["parts"][0]["digests"]) == (None, str(run), True)
    header, whole = gguf_header.read(file), file.read_bytes()
    where = {
        HEADER: header.places[HEADER_DIGEST] + 20,
        header.tensors[0].name: header.start + 5,
        header.tensors[-1].name: len(whole) - 1,
    }
    for part, at in where.items():
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert integrity.check(file).damaged == (part,)


def test_an_adapter_of_another_run_is_found_out(make_run: Callable[..., Path], tmp_path: Path):
    run = make_run()
    file = adapter_file.write(find(str(run)), "F32").file
    other = write_run(tmp_path / "runs" / "other", tmp_path / "base", SHAPE)
    write_adapter(other / "adapter", {"lm_head": (SHAPE.vocab, SHAPE.hidden)})
    manifest = json.loads((other / "medmind.json").read_text())
    manifest["adapter"]["digest"] = adapter_digest(other / "adapter")
    (other / "medmind.json").write_text(json.dumps(manifest))
    done = CliRunner().invoke(app, ["verify", str(file), "--source", str(other)])
    assert "was not made from the adapter of" in str(done.exception)


def test_what_llama_cpp_cannot_lay_over_a_base_is_refused(spm: Path, tmp_path: Path, make_run: Callable[..., Path]):
    base = write_base(tmp_path / "base", SHAPE, spm)
    dora = write_adapter(tmp_path / "dora", all_linear(SHAPE), use_dora=True)
    with pytest.raises(MedmindError, match="DoRA"):
        adapter_file.write(find(str(dora), base_name=str(base), out=tmp_path / "out"), "F32")
    with pytest.raises(MedmindError, match="without an adapter"):
        adapter_file.write(find(str(base), out=tmp_path / "out"), "F32")
    wide = write_adapter(tmp_path / "wide", {"model.layers.0.self_attn.q_proj": (64, 128)})
    with pytest.raises(MedmindError, match="does not match the base"):
        adapter_file.write(find(str(wide), base_name=str(base), out=tmp_path / "out"), "F32")
    assert not (tmp_path / "out").exists()


def test_values_that_f16_cannot_hold_are_refused(spm: Path, tmp_path: Path):
    base = write_base(tmp_path / "base", SHAPE, spm)
    huge = write_adapter(tmp_path / "huge", {"model.layers.0.self_attn.q_proj": (64, 64)}, alpha=4e7)
    source = find(str(huge), base_name=str(base), out=tmp_path / "out")
    with pytest.raises(MedmindError, match="beyond f16"):
        adapter_file.write(source, "F16")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_leaves_no_folder_that_was_made_for_the_file(
    spm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = write_base(tmp_path / "base", SHAPE, spm)
    source = find(str(write_adapter(tmp_path / "lora", all_linear(SHAPE))), base_name=str(base), out=tmp_path / "a/b")

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(adapter_file, "_write", full)
    with pytest.raises(MedmindError, match=r"lora.adapter.gguf: No space left on device — free some disk space"):
        adapter_file.write(source, "F32")
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    with pytest.raises(MedmindError, match="No space left"):
        adapter_file.write(source, "F32")
    assert not list((tmp_path / "a").iterdir())
