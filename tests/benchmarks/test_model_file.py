from pathlib import Path

import bench_model
import pytest

from medmind.errors import MedmindError
from medmind_benchmarks import model_file
from medmind_benchmarks.opening import opened


def test_a_header_tells_precision_size_and_parameters(family: Path) -> None:
    found = {quant: model_file.read(family / f"family.{quant}.gguf") for quant in ("f16", "q8_0", "q2_k")}
    assert {quant: one.quant for quant, one in found.items()} == {quant: quant for quant in found}
    parameters = sum(values.size for values in bench_model.weights().values())
    assert {one.parameters for one in found.values()} == {parameters}
    assert found["f16"].unquantized and not found["q8_0"].unquantized
    assert found["f16"].bits_per_weight == pytest.approx(16, abs=0.1)
    assert found["q8_0"].bits_per_weight == pytest.approx(8.5, abs=0.1)
    assert found["f16"].precision > found["q8_0"].precision > found["q2_k"].precision
    assert found["f16"].size == (family / "family.f16.gguf").stat().st_size


def test_f32_comes_before_f16(tmp_path: Path, family: Path) -> None:
    whole = model_file.read(bench_model.write(tmp_path / "m.gguf", half=False))
    assert whole.quant == "f32"
    assert whole.precision > model_file.read(family / "family.f16.gguf").precision


def test_quantizing_leaves_the_vocabulary_and_another_word_changes_it(family: Path, tmp_path: Path) -> None:
    ours = {model_file.read(path).vocabulary for path in family.glob("*.gguf")}
    assert len(ours) == 1
    words = [*bench_model.WORDS[:-1], "▁was"]
    other = model_file.read(bench_model.write(tmp_path / "m.gguf", words=words))
    assert other.vocabulary not in ours


def test_the_planned_kv_cache_is_what_llama_cpp_allocates(family: Path) -> None:
    path = family / "family.q8_0.gguf"
    with opened(path, context=256, threads=1) as engine:
        assert model_file.read(path).kv_cache_bytes(256) == engine.memory.kv_cache


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.9, 0.9999])
def test_a_cut_file_is_refused_wherever_it_is_cut(family: Path, tmp_path: Path, share: float) -> None:
    data = (family / "family.q2_k.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MedmindError, match=r"cut\.gguf is (cut off|not a GGUF)"):
        model_file.read(cut)
