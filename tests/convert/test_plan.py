"""What is planned is what comes: bytes exactly, memory nearly, and no weight is read for it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import (
    MISTRAL_TEMPLATE,
    Shape,
    all_linear,
    base_tensors,
    edit_json,
    json_only,
    write_adapter,
    write_base,
)
from typer.testing import CliRunner

from medmind import base, embedded
from medmind.errors import MedmindError
from medmind_convert import adapter as adapters
from medmind_convert import quants, vocabulary_outline, weights
from medmind_convert.cli import app
from medmind_convert.imatrix import Entry, Imatrix, write_imatrix
from medmind_convert.tokenizer import Tokenizer


def command(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def planned(*arguments: object) -> dict[str, dict[str, Any]]:
    return {each["quant"]: each for each in command("plan", *arguments)["types"]}


SHAPES: dict[str, dict[str, Any]] = {
    "untied, blocks of 256": {"hidden": 256, "ffn": 256, "layers": 1},
    "tied, rows of 96": {"hidden": 96, "ffn": 160, "heads": 3, "heads_kv": 3, "tied": True},
    "padding, more rows than tokens": {"hidden": 36, "ffn": 60, "heads": 3, "heads_kv": 3, "vocab": 401},
}


@pytest.mark.parametrize("more", [(), ("--no-provenance",), ("--split-max-size", "60k")], ids=["", "plain", "split"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_are_exact(shape: str, more: tuple[str, ...], make_run: Callable[..., Path]):
    run = make_run(**SHAPES[shape])
    names = ["f32", "bf16", "q8_0", "q4_k_m", "q3_k_s", "iq4_nl"]
    foretold = planned(*names, run, "--no-imatrix", *more)
    for file in command("gguf", *names, run, "--no-imatrix", "--no-cards", "--threads", "1", *more)["files"]:
        parts = list(run.glob(f"trial.{file['quant']}*.gguf"))
        expected = foretold[file["quant"]]
        assert expected["bytes"] == file["bytes"] == sum(part.stat().st_size for part in parts)
        assert (expected["files"], expected["bits_per_weight"]) == (len(parts), file["bits_per_weight"])
    if "--split-max-size" in more:
        assert foretold["f32"]["files"] > 2


def test_every_type_is_planned_and_no_weight_is_read(make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    run = make_run(hidden=256, ffn=512)
    for owner, name in ((weights.Tensor, "stored"), (base, "fingerprint"), (adapters, "adapter_digest")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("a weight was read"))
    found = planned(run)
    assert list(found) == list(quants.QUANTS)
    assert all(each["bytes"] > 0 for each in found.values())
    assert {name for name, each in found.items() if each["needs_imatrix"]} == {
        quant.name for quant in quants.QUANTS.values() if quant.needs_imatrix
    }
    assert "needs an importance matrix" in found["iq2_xs"]["refused"]
    assert found["f16"]["seconds"] < found["iq3_s"]["seconds"]
    assert list(run.glob("*.gguf")) == []


def test_sizes_of_what_a_matrix_is_needed_for_or_changes(make_run: Callable[..., Path]):
    """Planned before there is one, as what comes once there is; eight layers, of which a matrix changes the first."""
    run = make_run(hidden=256, ffn=256, layers=8, heads=4, heads_kv=1)
    names = ["q2_k_s", "q4_0", "q8_0"]
    before = planned(*names, run, "--no-imatrix")
    ones = np.ones(256, np.float32)
    linear = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = ["output.weight", *(f"blk.{layer}.{name}.weight" for layer in range(8) for name in linear)]
    entries = dict.fromkeys(tensors, Entry(ones, np.ones(1, np.float32)))
    write_imatrix(run / "trial.imatrix.gguf", Imatrix(entries, ("validation.jsonl",), 1, 512))
    done = command("gguf", *names[:2], run, "--no-cards", "--threads", "1", "--name", "trial")
    made = {file["quant"]: file["bytes"] for file in done["files"]}
    assert before["q2_k_s"]["needs_imatrix"]
    assert before["q2_k_s"]["bytes"] == made["q2_k_s"]
    assert before["q4_0"]["bytes"] < before["q4_0"]["bytes_with_imatrix"] == made["q4_0"]
    assert before["q8_0"]["bytes_with_imatrix"] is None


def test_a_tensor_larger_than_a_shard_is_said_beforehand(make_run: Callable[..., Path]):
    run = make_run()
    for name in ("plan", "gguf"):
        done = CliRunner().invoke(app, [name, "f32", str(run), "--split-max-size", "60k"], catch_exceptions=False)
        line = " ".join(done.stderr.split())
        assert "of --split-max-size: " in line
        assert "f32: file 1 of" in line
        assert "output.weight alone takes 98,304" in line
    assert "no Modelfile is written: Ollama imports no split GGUF" in line
    done = CliRunner().invoke(app, ["plan", "f32", str(run), "--split-max-size", "1M"], catch_exceptions=False)
    assert "--split-max-size" not in done.stderr


def test_headers_are_all_that_is_read_of_a_base(make_base: Callable[..., Path]):
    """The weights are cut out of the file, and a hole left in their place: nothing notices."""
    path = make_base(hidden=256, ffn=512) / "model.safetensors"
    before = planned(path.parent)
    size = path.stat().st_size
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    os.truncate(path, start)
    os.truncate(path, size)
    after = planned(path.parent)
    assert {name: each["bytes"] for name, each in after.items()} == {n: each["bytes"] for n, each in before.items()}


def test_a_disk_that_is_too_small_and_a_type_that_cannot_be_are_said(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from medmind import artifacts

    run = make_run(hidden=256, ffn=512)
    monkeypatch.setattr(artifacts, "free_bytes", lambda _: 2_000_000)
    found = planned("f32", "q4_0", run)
    assert (found["f32"]["fits"], found["q4_0"]["fits"]) == (False, True)
    done = CliRunner().invoke(app, ["plan", str(run)], catch_exceptions=False)
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "too large for the disk" in lines["f32"]
    assert "needs an importance matrix" in lines["iq2_xs"]
    assert f"{found['q4_0']['bytes']:,}" in lines["q4_0"]
    with pytest.raises(MedmindError, match="did you mean"):
        planned("q4_k_n", run)


def outlined(path: Path, rows: int) -> None:
    """The outline is the vocabulary that transformers makes of the same files, as far as a header's size goes."""
    found, whole = vocabulary_outline.read(path, rows), Tokenizer(path).vocabulary(rows)
    assert found is not None
    for field in ("tokens", "bos", "eos", "unk", "pad", "chat_template"):
        assert getattr(found, field) == getattr(whole, field), field


def test_the_outline_of_a_vocabulary_is_its_tokens_and_roles(make_base: Callable[..., Path], spm: Path, tmp_path: Path):
    outlined(spm, 400)
    outlined(json_only(make_base()), 384)
    outlined(embedded.FOLDER / embedded.BASE, len(Tokenizer(embedded.FOLDER / embedded.BASE)._model["vocab"]))


def test_where_only_transformers_can_tell_the_outline_declines(make_base: Callable[..., Path]):
    def added(document: dict[str, Any]) -> None:
        document["added_tokens"].append({"id": 380, "content": "a▁b", "normalized": True, "special": False})

    def changed(name: str, **change: Any) -> Path:
        path = make_base(name)
        config = json.loads((path / "tokenizer_config.json").read_text())
        (path / "tokenizer_config.json").write_text(json.dumps({**config, **change}))
        return path

    for path in (
        edit_json(make_base("a"), added),
        changed("b", pad_token="<new>"),
        changed("c", chat_template=[{"name": "default", "template": MISTRAL_TEMPLATE}]),
        changed("d", added_tokens_decoder={"390": {"content": "<x>"}}),
    ):
        assert vocabulary_outline.read(path, 400) is None
    missing = make_base("e")
    (missing / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<s>"}))
    assert vocabulary_outline.read(missing, 400) is None


PEAK = """
import sys, threading, time
from pathlib import Path
from medmind_convert import cli
from medmind.memory import resident
peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, resident().anonymous)
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
print(peak, file=open("peak", "w"))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tells anonymous memory apart on Linux only")
@pytest.mark.parametrize(("hidden", "threads", "quant"), [(1024, 2, "q8_0"), (2048, 1, "q4_k_m"), (2048, 4, "f16")])
def test_memory_is_within_five_percent(hidden: int, threads: int, quant: str, mistral_v3: Path, tmp_path: Path):
    shape = Shape(hidden=hidden, ffn=3 * hidden, layers=2, heads=16, heads_kv=4, vocab=32768)
    path = write_base(tmp_path / "base", shape, mistral_v3, base_tensors(shape))
    adapter = write_adapter(tmp_path / "adapter", all_linear(shape), rank=16)
    source = ["--base", path, "--adapter", adapter, "--no-imatrix", "--out", tmp_path, "--threads", threads]
    memory_is_as_planned(quant, source, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tells anonymous memory apart on Linux only")
@pytest.mark.parametrize(("threads", "quant"), [(1, "q8_0"), (2, "q4_k_m"), (2, "f16")])
def test_memory_of_a_small_model_on_nf4_is_within_five_percent(threads: int, quant: str, tmp_path: Path):
    memory_is_as_planned(quant, [embedded.TUNED, "--no-imatrix", "--out", tmp_path, "--threads", threads], tmp_path)


def memory_is_as_planned(quant: str, source: list[Any], folder: Path) -> None:
    foretold = planned(quant, *source)[quant]["memory"]
    arguments = ["gguf", quant, *map(str, source), "--no-cards"]
    subprocess.run([sys.executable, "-c", PEAK, *arguments], cwd=folder, check=True, capture_output=True)
    assert int((folder / "peak").read_text()) == pytest.approx(foretold, rel=0.05)
