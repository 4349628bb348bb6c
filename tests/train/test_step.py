"""`medmind-train step` on a tiny model: what it measures, and what becomes of what cannot be measured."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medmind.artifacts import read_json
from medmind.base import EMBEDDED_NAME, EMBEDDED_PATH, Base, weight_files
from medmind.errors import MedmindError
from medmind_train import cli, sizes
from medmind_train.fused.shape import Unsupported
from medmind_train.step import feed, measure, peers, shapes
from medmind_train.step.config import StepConfig, check

SHAPE = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "sliding_window": None,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LINEAR = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
RANK = 4
TRAINED = 2 * RANK * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
"""An A and a B a layer: rank × (inputs + outputs)."""


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDMIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "config.json"
    path.write_text(json.dumps(SHAPE), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture
def config(shape: Path, scratch: Path) -> StepConfig:
    return StepConfig(
        mode="reference",
        synthetic=str(shape),
        scratch=str(scratch),
        batch=2,
        length=32,
        rank=RANK,
        steps=2,
        warmup=1,
        device="cpu",
        dtype="float32",
    )


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["medmind-train", "step", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)

    return run


@pytest.mark.parametrize("mode", ["fused", "reference", "usual", "lora", "full"])
def test_a_mode_is_measured(config: StepConfig, mode: str) -> None:
    found = measure.run(replace(config, mode=mode))
    assert (found.status, found.reason) == ("measured", "")
    assert (found.work.linear, found.work.dtype) == (LINEAR, "float32")
    assert found.work.parameters == LINEAR + 2 * 256 * 64 + 5 * 64
    assert found.trained == (found.work.parameters if mode == "full" else TRAINED)
    assert found.trained_bytes == 4 * found.trained
    timing = found.timing
    assert timing
    assert len(timing.seconds) == 2
    assert (timing.tokens, timing.real, timing.supervised) == (128, 128, 124)
    assert timing.tokens_per_s == pytest.approx(64 / timing.median)
    assert timing.loss_first == pytest.approx(math.log(256), abs=0.3)
    assert found.memory.step_allocated is None
    assert found.memory.host_peak > 2**20


def test_the_plain_path_and_the_usual_way_see_the_same_documents(config: StepConfig) -> None:
    """Neither sees one document from another, and both take the mean over the same tokens."""
    apart = [measure.run(replace(config, mode=mode, documents=4)).timing for mode in ("reference", "usual")]
    together = measure.run(config).timing
    assert apart[0] and apart[1] and together
    assert apart[0].supervised == apart[1].supervised == 2 * 2 * 4 * 7
    assert apart[0].loss_first == pytest.approx(apart[1].loss_first, abs=1e-4)
    assert apart[0].loss_first != pytest.approx(together.loss_first, abs=1e-4)


def test_steps_train(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one batch again and again the loss falls: the update is part of the step."""
    monkeypatch.setattr(peers, "_LR", 0.02)
    once = feed.batches
    monkeypatch.setattr(feed, "batches", lambda *given: [once(*given)[0]] * 8)
    for mode in ("reference", "usual"):
        timing = measure.run(replace(config, mode=mode, steps=7)).timing
        assert timing
        assert timing.loss_last < timing.loss_first - 0.05


def test_ours_clip_gradients_alike(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[str, float]] = []
    clip = torch.nn.utils.clip_grad_norm_
    for mode in ("fused", "reference"):

        def note(parameters: Any, limit: float, mode: str = mode) -> torch.Tensor:
            limits.append((mode, limit))
            return clip(parameters, limit)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", note)
        assert measure.run(replace(config, mode=mode)).conditions.flags["gradient clipping"] == "1"
    assert limits == [("fused", 1.0)] * 3 + [("reference", 1.0)] * 3


def test_the_command_prints_one_document(step: Callable[..., Result], shape: Path, scratch: Path) -> None:
    given = ["--synthetic", str(shape), "--scratch", str(scratch), "--length", "16", "--steps", "1", "--warmup", "0"]
    found = step("--mode", "reference", "--device", "cpu", "--json", *given)
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert document["schema"] == "medmind-step/1"
    assert document["conditions"]["versions"]["torch"] == torch.__version__
    assert document["conditions"]["card"]
    assert document["conditions"]["flags"]["optimizer"] == "adamw"
    plain = step("--mode", "reference", "--device", "cpu", *given)
    assert f"tokens/s on {document['conditions']['card']}" in plain.out.replace("\n", " ")


def test_products_are_timed(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from medmind_train.step import matmul

    monkeypatch.setitem(matmul._SIZES, "cpu", 64)
    found = measure.run(replace(config, mode="matmul")).matmul
    assert found
    assert len(found.seconds) == 20
    assert found.flops_per_s == pytest.approx(2 * 64**3 / sorted(found.seconds)[10], rel=0.5)


@pytest.mark.parametrize(("mode", "package"), [("liger", "liger_kernel"), ("unsloth", "unsloth")])
def test_a_peer_that_is_not_there_is_a_finding(
    step: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, mode: str, package: str
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    found = step("--mode", mode, "--device", "cpu", "--json")
    assert found.code == 0
    document = json.loads(found.out)
    assert document["status"] == "not installed"
    assert package in document["reason"]
    monkeypatch.setattr(peers, "find_spec", lambda name: SimpleNamespace())
    document = json.loads(step("--mode", mode, "--device", "cpu", "--json").out)
    assert document["status"] == "unsupported"


def test_a_peer_that_does_not_import_is_a_finding(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise NotImplementedError("no such\ncard")

    monkeypatch.setattr(peers, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(peers, "import_module", broken)
    assert peers.absent("unsloth", "cuda") == (
        "failed",
        "the Python package 'unsloth' cannot be imported: NotImplementedError: no such card",
    )
    assert peers.absent("usual", "cuda") is None


class _Failing:
    trainable = (torch.zeros(3),)
    pinned = 7
    flags: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, at: int, error: BaseException | None, loss: float = 1.0) -> None:
        self.left, self.error, self.loss = at, error, loss

    def step(self, batch: Any) -> torch.Tensor:
        self.left -= 1
        if self.error and self.left == 0:
            raise self.error
        return torch.tensor(self.loss)


def test_full_memory_is_a_finding(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        try:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        except torch.OutOfMemoryError as error:
            raise MedmindError("it does not fit") from error

    monkeypatch.setattr(peers, "build", refuse)
    found = measure.run(config)
    assert (found.status, found.timing, found.trained) == ("out of memory", None, None)
    assert found.reason.startswith("while loading: it does not fit")
    for error in (torch.OutOfMemoryError("no"), RuntimeError("CUDA error: out of memory"), MemoryError()):
        monkeypatch.setattr(peers, "build", lambda *given, error=error, **named: _Failing(2, error))
        found = measure.run(config)
        assert found.status == "out of memory"
        assert "computing step 2" in found.reason
        assert (found.trained, found.memory.host_pinned) == (3, 7)


def test_other_errors_are_not_hidden_but_in_a_peer(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "build", lambda *given, **named: _Failing(1, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        measure.run(config)
    monkeypatch.setattr(peers, "absent", lambda mode, device: None)
    found = measure.run(replace(config, mode="liger"))
    assert (found.status, found.reason) == ("failed", "while computing step 1: RuntimeError: shapes differ")


def test_a_loss_that_is_no_number_is_no_measurement(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "build", lambda *given, **named: _Failing(0, None, math.nan))
    found = measure.run(config)
    assert (found.status, found.timing) == ("failed", None)
    assert "not finite" in found.reason


def test_what_the_fused_step_cannot_do_is_a_finding(config: StepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from medmind_train.step import ours

    def refuse(*given: object, **named: object) -> None:
        raise Unsupported("its kind is gemma")

    monkeypatch.setattr(ours, "fused_stepper", refuse)
    found = measure.run(replace(config, mode="fused"))
    assert (found.status, found.reason) == ("unsupported", "its kind is gemma")


def test_rows_of_data_are_packed_or_padded(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    source = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = [
        {
            "question": f"What helps against ache {at}?",
            "answer": " ".join("".join(source.sample(letters, 4)) for _ in range(2 + 2 * (at % 7))),
        }
        for at in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = StepConfig(data=str(path), batch=2, length=128, steps=6, warmup=2)
    base = Base(EMBEDDED_NAME, "embedded", EMBEDDED_PATH)
    vocabulary = json.loads((EMBEDDED_PATH / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    packed = feed.batches(config, base, vocabulary)
    padded = feed.batches(replace(config, packing=False), base, vocabulary)
    assert len(packed) == len(padded) == 8
    assert {tuple(one.batch.ids.shape) for one in packed} == {(2, 128)}
    assert all(len(one.batch.rows) == 2 for one in padded)
    assert all(one.batch.ids.shape[1] <= 128 for one in padded)
    lengths = [one.batch.ids.shape[1] for one in padded]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))
    for one in (*packed, *padded):
        assert one.real == int((one.batch.owners >= 0).sum())
        assert one.supervised == int(one.batch.supervised[:, 1:].sum())
    assert sum(one.supervised for one in packed) > 2 * sum(one.supervised for one in padded)


def test_a_tokenizer_too_large_for_the_shape_is_refused(config: StepConfig) -> None:
    with pytest.raises(MedmindError, match=r"vocabulary is 256.*--tokenizer"):
        measure.run(replace(config, data="sample", length=256))


def test_random_weights_have_the_exact_shape(shape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_SHARD", 40_000)
    made = shapes.checkpoint(str(shape), tmp_path, device="cpu", seed=1)
    files = weight_files(made)
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) > 2
    assert len(tensors) == 2 + 1 + 2 * 9
    assert tensors["model.layers.1.mlp.down_proj.weight"].shape == (64, 128)
    assert tensors["lm_head.weight"].shape == (256, 64)
    assert bool((tensors["model.layers.0.input_layernorm.weight"] == 1).all())
    assert float(tensors["lm_head.weight"].float().std()) == pytest.approx(0.02, rel=0.05)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    # embedding and head are drawn, not copied
    assert not torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])


def test_random_weights_are_used_again_when_they_are_what_is_wanted(shape: Path, tmp_path: Path) -> None:
    made = shapes.checkpoint(str(shape), tmp_path, device="cpu", seed=1)
    stamp = (made / shapes.MANIFEST).stat().st_mtime_ns
    assert shapes.checkpoint(str(shape), tmp_path, device="cpu", seed=1) == made
    assert (made / shapes.MANIFEST).stat().st_mtime_ns == stamp
    assert shapes.checkpoint(str(shape), tmp_path, device="cpu", seed=2) != made
    (made / shapes.MANIFEST).unlink()  # as an interrupted copy would leave it
    assert shapes.checkpoint(str(shape), tmp_path, device="cpu", seed=1) == made
    assert read_json(made / shapes.MANIFEST)["seed"] == 1


def test_a_tied_head_and_biases(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    qwen = {**SHAPE, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True}
    path.write_text(json.dumps(qwen), encoding="utf-8")
    made = shapes.checkpoint(str(tmp_path), tmp_path / "out", device="cpu", seed=0)
    tensors = {name: tensor for file in weight_files(made) for name, tensor in load_file(file).items()}
    assert "lm_head.weight" not in tensors
    assert not tensors["model.layers.0.self_attn.q_proj.bias"].any()


def test_mistral_7b_has_the_parameters_of_mistral_7b() -> None:
    sizes = shapes._shapes(shapes.read_shape("mistral-7b"), "mistral-7b")
    assert sum(math.prod(size) for size in sizes.values()) == 7_248_023_552


@pytest.mark.parametrize(
    ("text", "size"), [("5.0GiB", 5 * 2**30), ("900 MiB", 900 * 2**20), ("1e3", None), ("0", None), ("-1GiB", None)]
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(MedmindError, match="--cap"):
            sizes.parse("--cap", text)
    else:
        assert sizes.parse("--cap", text) == size


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base": "a", "synthetic": "mistral-7b"}, "exclude"),
        ({"synthetic": "mistral-7b"}, "--scratch"),
        ({"data": "sample", "documents": 2}, "--documents"),
        ({"documents": 20, "length": 32}, "less than 2 tokens"),
        ({"vram": "much"}, "--vram"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(MedmindError, match=words):
        check(StepConfig(**settings))


def test_a_cap_needs_a_card(config: StepConfig) -> None:
    with pytest.raises(MedmindError, match="runs on the CPU"):
        measure.run(replace(config, cap="1GiB"))


def test_help_and_the_records_need_no_torch() -> None:
    code = (
        "import sys; from medmind_train.step import cli, document; "
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
