"""What is written, read back by llama.cpp: logits, types, metadata, tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import Shape, all_linear, write_adapter

from medmind import gguf_header, llama
from medmind.errors import MedmindError
from medmind_convert import companions, integrity, quants
from medmind_convert.check import TEXTS
from medmind_convert.convert import Options, convert
from medmind_convert.gguf_vocabulary import GgufVocabulary
from medmind_convert.info import read
from medmind_convert.source import find

IDS = [1, 4, 300, 301, 17, 250, 5, 99, 310, 222, 2, 4, 260, 261, 5]


def made(base: Path, *names: str, **options: Any) -> dict[str, Path]:
    source = find(str(base), out=base.parent / "out", **options)
    results, _ = convert(source, quants.parse(list(names)), Options(force=True))
    return {result.quant.name: result.file for result in results}


def logits_of_gguf(path: Path) -> np.ndarray:
    model = llama.package().Llama(str(path), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0, n_threads=2)
    model.eval(IDS)
    return np.array(model.scores[: len(IDS)])


def logits_of_transformers(base: Path) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"heads_kv": 4, "tied": True, "dtype": "F32"},
        {"heads_kv": 1, "tied": True, "dtype": "F16", "layers": 3},
        {"hidden": 96, "ffn": 160, "heads": 3, "heads_kv": 3, "dtype": "F32"},
        {"extra": (("attention_bias", True),), "dtype": "F32"},
        {"extra": (("rope_parameters", {"rope_type": "linear", "factor": 2.0, "rope_theta": 900.0}),)},
    ],
    ids=["gqa", "mha tied f32", "mqa tied f16", "odd", "biases", "linear rope"],
)  # fmt: skip
def test_llama_cpp_computes_what_transformers_computes(shape: dict[str, Any], make_base: Callable[..., Path]):
    """f32 files: the same weights, so only the order of float32 sums differs. Logits here have a spread of about 1."""
    base = make_base(**shape)
    reference = logits_of_transformers(base)
    found = logits_of_gguf(made(base, "f32")["f32"])
    assert reference.std() > 0.3
    assert np.abs(found - reference).max() < 2e-4


def test_a_bf16_file_computes_nearly_the_same(make_base: Callable[..., Path]):
    """llama.cpp rounds activations to bf16 (8 bits) before a product with bf16 weights: 1 % of the logits' spread."""
    base = make_base()
    reference = logits_of_transformers(base)
    found = logits_of_gguf(made(base, "bf16")["bf16"])
    assert np.sqrt(np.mean((found - reference) ** 2)) < 0.02 * reference.std()


def test_the_merged_model_computes_what_pefts_merged_model_computes(tmp_path: Path, make_base: Callable[..., Path]):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make_base(dtype="F32")
    adapter = write_adapter(tmp_path / "adapter", all_linear(Shape()), use_rslora=True, alpha_pattern={"k_proj": 1})
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    with torch.no_grad():
        reference = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(reference - logits_of_transformers(base)).max() > 0.5  # the adapter matters
    source = find(None, base_name=str(base), adapter=adapter, out=tmp_path / "out")
    results, _ = convert(source, quants.parse(["f32"]))
    assert np.abs(logits_of_gguf(results[0].file) - reference).max() < 5e-4


ORDINARY = [quant.name for quant in quants.QUANTS.values() if not quant.needs_imatrix]


def test_every_type_that_needs_no_imatrix_converts_and_is_what_its_name_says(make_base: Callable[..., Path]):
    base = make_base(hidden=256, ffn=256, heads=4, heads_kv=1, layers=2)
    files = made(base, *ORDINARY)
    assert list(files) == ORDINARY
    for name, file in files.items():
        with GgufVocabulary(file) as vocabulary:
            assert vocabulary.metadata("general.file_type") == str(quants.QUANTS[name].ftype)
        if name == "q2_0":  # newer than the gguf package, which cannot read it
            with pytest.raises(MedmindError, match="tensor type that this version of the gguf package"):
                read(file)
            continue
        document = read(file)
        kinds = {tensor["type"] for tensor in document["tensors"] if len(tensor["shape"]) == 2}
        main = next(t["type"] for t in document["tensors"] if t["name"] == "blk.1.ffn_gate.weight")
        stem = {"mxfp4_moe": "Q8_0", "iq3_m": "IQ3_S"}.get(name, name.upper().removesuffix("_M").removesuffix("_L"))
        assert main == (stem.removesuffix("_S") if name.startswith("q") else stem), (name, kinds)
        assert all(t["type"] == "F32" for t in document["tensors"] if len(t["shape"]) == 1)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    assert sizes["q2_k"] < sizes["q4_k_m"] < sizes["q8_0"] < sizes["bf16"] == sizes["f16"] < sizes["f32"]


def test_rows_that_are_no_multiple_of_256_fall_back_as_llama_cpp_does(make_base: Callable[..., Path]):
    document = read(made(make_base(hidden=96, ffn=160, heads=3, heads_kv=3), "q4_k_m")["q4_k_m"])
    assert {t["type"] for t in document["tensors"] if "ffn_gate" in t["name"]} == {"Q5_0"}


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_quantized_file_is_made_from_the_bases_own_type(dtype: str, make_base: Callable[..., Path]):
    """Bytes equal those of llama.cpp's quantizer on an unquantized file of that type, written by itself."""
    llama_cpp = llama.package()

    base = make_base(dtype=dtype, hidden=256, ffn=256)
    source = find(str(base), out=base.parent / "out")
    bare, quantized = convert(source, quants.parse([dtype.lower(), "q4_k_m"]), Options(provenance=False))[0]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    again = base / "again.gguf"
    assert llama_cpp.llama_model_quantize(str(bare.file).encode(), str(again).encode(), params) == 0
    assert again.read_bytes() == quantized.file.read_bytes()


def test_what_llama_cpps_own_converter_gets_wrong_is_laid_to_no_provenance(make_base: Callable[..., Path]):
    """Where nothing says otherwise, its files put a space before a text, which this tokenizer does not."""
    base = make_base()
    config = base / "tokenizer_config.json"
    document = json.loads(config.read_text())
    del document["add_prefix_space"]
    config.write_text(json.dumps(document))
    source = find(str(base), out=base.parent / "out")
    with pytest.raises(MedmindError, match="otherwise than transformers") as caught:
        convert(source, quants.parse(["q8_0"]), Options(provenance=False))
    assert "with --no-provenance" in caught.value.hint
    assert not source.out.exists()
    assert convert(source, quants.parse(["q8_0"]))[0][0].file.exists()


def test_tied_embeddings_leave_out_the_output_layer(make_base: Callable[..., Path]):
    names = {t["name"] for t in read(made(make_base(tied=True), "f16")["f16"])["tensors"]}
    assert "token_embd.weight" in names
    assert "output.weight" not in names


def test_a_run_carries_its_provenance(make_run: Callable[..., Path]):
    run = make_run()
    (run.parent.parent / "base" / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# hi\n")
    manifest = json.loads((run / "medmind.json").read_text())
    results, agreement = convert(find(str(run)), quants.parse(["q8_0"]))
    assert results[0].file == run / "trial.q8_0.gguf"
    metadata = read(results[0].file)["metadata"]
    assert metadata["medmind.format"] == "medmind-gguf/1"
    assert metadata["medmind.run"] == metadata["general.name"] == "trial"
    assert metadata["medmind.base.digest"] == manifest["base"]["digest"]
    assert metadata["medmind.adapter.digest"] == manifest["adapter"]["digest"]
    assert metadata["medmind.data.source"] == "own sample"
    assert metadata["medmind.data.digest"] == "sha256:00ff"
    assert metadata["medmind.system_prompt"] == "Answer briefly."
    assert metadata["medmind.context"] == 256
    assert metadata["general.license"] == "apache-2.0"
    assert metadata["general.base_model.count"] == 1
    assert metadata["llama.context_length"] == 512
    assert metadata["llama.rope.freq_base"] == 50000.0
    assert metadata["llama.attention.head_count_kv"] == 2
    assert metadata["tokenizer.ggml.eos_token_id"] == 2
    assert agreement.texts == agreement.renderings == 6  # three assistant turns: prompt and full answer of each


def test_an_empty_system_prompt_is_written_as_empty(make_run: Callable[..., Path]):
    run = make_run()
    manifest = json.loads((run / "medmind.json").read_text())
    (run / "medmind.json").write_text(json.dumps({**manifest, "system_prompt": ""}))
    results, _ = convert(find(str(run)), quants.parse(["q4_0"]))
    assert read(results[0].file)["metadata"]["medmind.system_prompt"] == ""


def test_other_stop_tokens_of_the_generation_config_stop_llama_cpp_too(make_base: Callable[..., Path]):
    base = make_base()
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5]}))
    with GgufVocabulary(made(base, "f16")["f16"]) as vocabulary:
        assert vocabulary.ends(2)
        assert vocabulary.ends(5)
        assert not vocabulary.ends(4)


@pytest.mark.parametrize("dora", [False, True], ids=["base alone", "with a DoRA adapter"])
def test_only_blocks_of_the_weights_are_in_memory(dora: bool, make_base: Callable[..., Path], tmp_path: Path):
    """Peak of numpy's own memory while a 60 MB model is merged: far below the model, whatever its tensors' size."""
    import tracemalloc

    shape = {"hidden": 512, "ffn": 16384, "heads": 8, "heads_kv": 8, "layers": 1, "tied": True}
    base = make_base(**shape)
    source = find(str(base), out=tmp_path / "out")
    if dora:
        adapter = write_adapter(tmp_path / "adapter", all_linear(Shape(**shape)), use_dora=True)
        source = find(None, base_name=str(base), adapter=adapter, out=tmp_path / "out")

    tracemalloc.start()
    results, _ = convert(source, quants.parse(["bf16"]), Options(threads=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    written = results[0].bytes
    assert written > 50_000_000
    assert peak < 24_000_000


def test_a_run_on_a_hub_model_asks_the_hub_for_the_revision_it_was_trained_on(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from medmind import hub

    run = make_run()
    manifest = json.loads((run / "medmind.json").read_text())
    local = Path(manifest["base"]["path"])
    manifest["base"] |= {"name": "someone/tiny-7B", "kind": "hub", "revision": "abc123"}
    (run / "medmind.json").write_text(json.dumps(manifest))
    asked = []

    def fetch(repo_id: str, revision: str | None, *, assume_yes: bool = False) -> tuple[Path, str]:
        asked.append((repo_id, revision, assume_yes))
        return local, "abc123"

    monkeypatch.setattr(hub, "fetch_model", fetch)
    results, _ = convert(find(str(run), assume_yes=True), quants.parse(["q8_0"]))
    assert asked == [("someone/tiny-7B", "abc123", True)]
    metadata = read(results[0].file)["metadata"]
    assert metadata["medmind.base.name"] == "someone/tiny-7B"
    assert metadata["medmind.base.revision"] == metadata["general.base_model.0.version"] == "abc123"
    assert metadata["general.base_model.0.repo_url"] == "https://huggingface.co/someone/tiny-7B"
    assert metadata["general.base_model.0.name"] == "tiny-7B"


def test_the_embedded_base_converts(tmp_path: Path):
    """The real base in the package, whatever its weights: every check passes on it."""
    results, agreement = convert(find("medmind-base", out=tmp_path), quants.parse(["q8_0", "q4_0"]))
    assert [result.file.name for result in results] == ["medmind-base.q8_0.gguf", "medmind-base.q4_0.gguf"]
    assert agreement.renderings == 2 * len(TEXTS)
    names = {t["name"] for t in read(results[0].file)["tensors"]}
    assert "output.weight" not in names


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts what a process writes")
def test_a_header_is_written_once(make_run: Callable[..., Path]):
    """Besides the file: the digests put into its header, and the journal. A 7B's header is most of a MB."""

    def written() -> int:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["wchar"])

    run = make_run()
    made(run, "q4_0")  # Python may write what it compiles
    before = written()
    file = made(run, "q4_0")["q4_0"]
    more = written() - before - file.stat().st_size
    header = gguf_header.read(file).start
    print(f"{more} bytes besides the file, whose header has {header}")
    assert 0 < more < header
    assert not integrity.check(file).damaged


def test_the_card_counts_the_bits_of_files_that_lie_there_as_info_does(make_run: Callable[..., Path]):
    for file in made(make_run(), "q8_0", "q4_0", "f16").values():
        assert companions._bits(file) == read(file)["bits_per_weight"]
