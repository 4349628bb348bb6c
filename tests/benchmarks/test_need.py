"""What a model will need, held against what was measured of committed results; a context too long is refused alone."""

import json
from pathlib import Path
from typing import Any

import bench_model
import pytest

from medmind_benchmarks import machine, matrix, need, plan, sources
from medmind_benchmarks.config import QuantsConfig
from medmind_benchmarks.model_file import ModelFile
from medmind_benchmarks.opening import opened

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SHAPES = {
    "medmind-tiny-quants.json": (5, 512, 1280, 8, 2),
    "mistral-7b-shape-quants-cpu.json": (32, 4096, 14336, 32, 8),
}
"""Layers, width, feed-forward width, heads and KV heads."""


def described(shape: tuple[int, ...], tensor_bytes: int) -> ModelFile:
    layers, width, wide, heads, kv_heads = shape
    facts = {"block_count": layers, "embedding_length": width, "feed_forward_length": wide}
    facts |= {"attention.head_count": heads, "attention.head_count_kv": kv_heads}
    metadata: dict[str, Any] = {"general.architecture": "llama", **{f"llama.{key}": facts[key] for key in facts}}
    return ModelFile(Path("m"), metadata, 7, tensor_bytes, tensor_bytes, 1, tensor_bytes, "", "")


@pytest.mark.parametrize("name", SHAPES)
def test_the_need_is_what_was_measured(name: str) -> None:
    compared = 0
    for level in json.loads((RESULTS / name).read_text("utf-8"))["levels"]:
        for found in level["figures"]["memory"]:
            model = described(SHAPES[name], found["weights"])
            assert need.compute_bytes(model, found["context"]) == pytest.approx(found["compute"], rel=0.03)
            if found["load_mode"] == "auto":
                compared += 1
                assert need.process_bytes(model, found["context"]) == pytest.approx(found["peak"], rel=0.1)
    assert compared > 5


@pytest.mark.parametrize(
    ("width", "wide", "kv_heads", "layers", "context"),
    [(256, 896, 2, 2, 512), (256, 640, 4, 3, 512), (256, 1024, 1, 2, 2048), (512, 1536, 4, 2, 1024)],
)
def test_the_compute_buffer_is_what_llama_cpp_reports_of_any_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, wide: int, kv_heads: int, layers: int, context: int
) -> None:
    shape = {"WIDTH": width, "FEED_FORWARD": wide, "KV_HEADS": kv_heads, "LAYERS": layers, "CONTEXT": context}
    for name, value in shape.items():
        monkeypatch.setattr(bench_model, name, value)
    path = bench_model.write(tmp_path / "shape.gguf")
    with opened(path, context=context, threads=1) as engine:
        reported = engine.memory.compute
    assert need.compute_bytes(plan.read(path), context) == pytest.approx(reported, rel=0.005)


def test_a_narrow_feed_forward_part_needs_no_more_than_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench_model.FEED_FORWARD == 2 * bench_model.WIDTH
    monkeypatch.setattr(bench_model, "CONTEXT", 2 * bench_model.CONTEXT)
    path = bench_model.write(tmp_path / "narrow.gguf")
    with opened(path, context=bench_model.CONTEXT, threads=1) as engine:
        reported = engine.memory.compute
    assert reported < need.compute_bytes(plan.read(path), bench_model.CONTEXT) < 1.3 * reported


def test_a_context_that_does_not_fit_is_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench_model.write(tmp_path / "one.f16.gguf")
    read = plan.read(model)
    enough = need.process_bytes(read, bench_model.CONTEXT // 2)
    monkeypatch.setattr(machine, "available_memory", lambda: (enough, 2 * enough))
    contexts = (bench_model.CONTEXT // 2, bench_model.CONTEXT)
    config = QuantsConfig(measure=("memory",), contexts=contexts, load_modes=("auto",), threads=1)
    made = plan.make(sources.find([model], None, None, needs_heldout=False), config)
    files = matrix.Files(*(tmp_path / name for name in ("a", "b", "c", "d", "e")))
    assert not made.levels[0].refusal
    assert [(bool(cell.refusal), cell.skipped) for cell in matrix.cells(made, files)] == [(False, False), (True, False)]
