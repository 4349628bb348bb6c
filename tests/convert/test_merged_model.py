"""The merged model as a directory: the files that PEFT's merge and save leave, streamed, whole or not at all."""

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import Shape, all_linear, write_adapter, write_safetensors
from typer.testing import CliRunner

from medmind import artifacts
from medmind.errors import MedmindError
from medmind_convert import merged_model, one_pass
from medmind_convert.cli import app
from medmind_convert.conversion import Conversion
from medmind_convert.nf4 import Nf4Tensor
from medmind_convert.source import find
from medmind_convert.weights import open_tensors

Q0 = "model.layers.0.self_attn.q_proj"
SMALL = 40_000
"""Bytes of a shard: the tiny base becomes some ten files."""


def merge(*arguments: object) -> dict[str, Any]:
    """The command's JSON document."""
    done = CliRunner().invoke(app, ["merge", *map(str, arguments), "--json", "--threads", "2"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def saved_by_peft(base: Path, adapter: Path, out: Path, **options: Any) -> Path:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter)
    model.merge_and_unload().save_pretrained(out, **options)
    return out


def weights(folder: Path) -> dict[str, bytes]:
    """The files of weights and their index."""
    return {path.name: path.read_bytes() for path in folder.glob("model*")}


def logits(folder: Path) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").float().eval()
    with torch.no_grad():
        return model(torch.arange(4, 44)[None]).logits[0].numpy()


@pytest.mark.parametrize(
    ("dimensions", "config"),
    [
        ({}, {}),
        ({"dtype": "F16"}, {"use_rslora": True}),
        ({"dtype": "F32", "tied": True}, {"alpha": 3.5, "alpha_pattern": {"q_proj": 32, "layers.1.mlp.up_proj": 2}}),
        ({"heads_kv": 4, "layers": 11}, {"ranks": {Q0: 2}, "rank_pattern": {"layers.0.self_attn.q_proj": 2}}),
        ({"extra": (("attention_bias", True),)}, {"use_rslora": True}),
    ],
    ids=["plain", "rslora f16", "alpha_pattern tied f32", "rank_pattern 11 layers", "biases"],
)
def test_the_files_are_those_of_peft_byte_for_byte_and_load_to_the_same_logits(
    dimensions: dict[str, Any], config: dict[str, Any], tmp_path: Path, make_base: Callable[..., Path]
):
    base = make_base(**dimensions)
    adapter = write_adapter(tmp_path / "adapter", all_linear(Shape(**dimensions)), **config)
    whole = tmp_path / "ours"
    document = merge(adapter, "--base", base, "--out", whole)
    theirs = weights(saved_by_peft(base, adapter, tmp_path / "theirs"))
    assert list(theirs) == ["model.safetensors"]
    assert weights(whole) == theirs
    assert document["files"] == [{"file": str(whole / "model.safetensors"), "bytes": len(theirs["model.safetensors"])}]
    found = logits(whole)
    assert np.array_equal(found, logits(tmp_path / "theirs"))
    assert np.abs(found - logits(base)).max() > 0.5  # the adapter matters


def test_shards_and_index_are_those_of_peft(tmp_path: Path, make_base: Callable[..., Path]):
    base, adapter = make_base(), write_adapter(tmp_path / "adapter", all_linear(Shape()))
    document = merge(adapter, "--base", base, "--out", tmp_path / "ours", "--max-shard-size", SMALL)
    theirs = weights(saved_by_peft(base, adapter, tmp_path / "theirs", max_shard_size=SMALL))
    assert len(theirs) > 6
    assert weights(tmp_path / "ours") == theirs
    assert [Path(file["file"]).name for file in document["files"]] == sorted(name for name in theirs if "-of-" in name)


def test_dora_is_pefts_within_one_rounding(tmp_path: Path, make_base: Callable[..., Path]):
    base, adapter = make_base(), write_adapter(tmp_path / "adapter", all_linear(Shape()), use_dora=True)
    merge(adapter, "--base", base, "--out", tmp_path / "ours")
    saved_by_peft(base, adapter, tmp_path / "theirs")
    ours, theirs = (open_tensors([tmp_path / who / "model.safetensors"]) for who in ("ours", "theirs"))
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        expected = tensor.rows(slice(None))
        np.testing.assert_allclose(ours[name].rows(slice(None)), expected, rtol=2.0**-7, atol=1e-6)


def test_a_run_is_merged_onto_the_nf4_that_it_was_trained_on(tmp_path: Path, make_run: Callable[..., Path]):
    """As PEFT merges onto a base whose linear layers are what NF4 leaves of them."""
    run = make_run()
    manifest = json.loads((run / "medmind.json").read_text())
    (run / "medmind.json").write_text(json.dumps({**manifest, "config": {"dtype": "bfloat16"}}))
    document = merge(run)
    assert document["merged_onto"] == "nf4"
    assert document["directory"] == str(run / "merged")
    base = Path(manifest["base"]["path"])
    left = shutil.copytree(base, tmp_path / "left")
    values = {
        name: (Nf4Tensor(tensor, "BF16") if "_proj" in name else tensor).rows(slice(None))
        for name, tensor in open_tensors([base / "model.safetensors"]).items()
    }
    write_safetensors(left / "model.safetensors", values, "BF16")
    assert weights(run / "merged") == weights(saved_by_peft(left, run / "adapter", tmp_path / "theirs"))
    onto_base = merge(run, "--out", tmp_path / "onto-base", "--merge-onto", "base")
    assert onto_base["merged_onto"] == "base"
    assert weights(tmp_path / "onto-base") == weights(saved_by_peft(base, run / "adapter", tmp_path / "theirs"))
    assert weights(tmp_path / "onto-base") != weights(run / "merged")


def test_what_else_a_loader_and_a_reader_want_lies_beside(tmp_path: Path, make_run: Callable[..., Path]):
    from transformers import AutoTokenizer

    run = make_run()
    base = tmp_path / "base"
    (base / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    (base / "LICENSE").write_text("do as you like")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# hi\n")
    (run / "adapter" / "chat_template.jinja").write_text("not the tokenizer's folder")
    manifest = json.loads((run / "medmind.json").read_text())
    manifest["adapter"]["digest"] = artifacts.adapter_digest(run / "adapter")
    (run / "medmind.json").write_text(json.dumps(manifest))
    merge(run)
    out = run / "merged"
    for name in ("config.json", "generation_config.json", "LICENSE", "tokenizer.model", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "generation_config.json", "LICENSE", "tokenizer.model", "tokenizer_config.json"),
        *("README.md", "medmind-merge.json", "model.safetensors"),
    }
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: transformers\n")
    assert "before every conversation: Answer briefly." in card
    assert "| merged onto | the NF4 weights" in card
    record = json.loads((out / "medmind-merge.json").read_text())
    assert record["adapter"] == manifest["adapter"]["digest"]
    assert record["base"]["digest"] == manifest["base"]["digest"]
    tensor = open_tensors([out / "model.safetensors"])[f"{Q0}.weight"]
    own = out / "own"
    own.write_bytes(tensor.stored(0, tensor.shape[0]).tobytes())
    assert record["tensors"][f"{Q0}.weight"] == artifacts.sha256(own)
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (out, base))
    messages = [{"role": "user", "content": "What is asthma?"}]
    assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages)


def test_a_merged_model_converts_as_a_base_to_the_bytes_of_the_merge_in_one_pass(make_run: Callable[..., Path]):
    run = make_run()
    merge(run, "--merge-onto", "base")
    files = []
    for arguments in ([run, "--merge-onto", "base"], [run / "merged", "--out", run, "--name", "later"]):
        command = ["gguf", "q8_0", *map(str, arguments), "--no-provenance", "--no-cards", "--json"]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        files.append(Path(json.loads(done.stdout)["files"][0]["file"]))
    from gguf import GGUFReader

    one, two = ([(t.name, t.data.tobytes()) for t in GGUFReader(file).tensors] for file in files)
    assert one == two


def test_what_is_not_to_be_lost_is_refused_and_force_replaces_a_merge_alone(
    tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    run = make_run()
    base = tmp_path / "base"

    def refused(*arguments: object) -> str:
        with pytest.raises(MedmindError) as raised:
            merge(*arguments)
        return str(raised.value)

    (tmp_path / "empty").mkdir()
    merge(run, "--out", tmp_path / "empty")
    assert "empty exists already" in refused(run, "--out", tmp_path / "empty")
    assert merge(run, "--out", tmp_path / "empty", "--force")["resumed"] == 0
    for dear in (base, run, tmp_path):
        before = sorted(dear.rglob("*"))
        assert "exists already" in refused(run, "--out", dear)
        assert "is no merged model that medmind wrote" in refused(run, "--out", dear, "--force")
        assert sorted(dear.rglob("*")) == before
    assert "nothing to merge" in refused(base, "--out", tmp_path / "new" / "merged")
    usage = type(shutil.disk_usage(tmp_path))(10**12, 10**12 - 10**5, 10**5)
    with monkeypatch.context() as patched:
        patched.setattr(artifacts.shutil, "disk_usage", lambda path: usage)
        assert "the merged model needs" in refused(run, "--out", tmp_path / "new" / "merged")
    assert not (tmp_path / "new").exists()
    assert list(tmp_path.rglob(".*")) == []


@pytest.mark.parametrize("shard", [10**9, SMALL], ids=["one file", "shards"])
def test_an_ended_merge_keeps_what_is_finished_and_ends_in_the_same_bytes(
    shard: int, tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    run = make_run()
    merge(run, "--max-shard-size", shard)
    expected = {path.name: path.read_bytes() for path in (run / "merged").iterdir()}
    conversion = Conversion(find(str(run)), "nf4")
    out = tmp_path / "again"
    take, taken = one_pass._take, []

    def stops(*arguments: Any) -> None:
        if len(taken) == 12:
            raise KeyboardInterrupt
        taken.append(0)
        take(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(one_pass, "_take", stops)
        merged_model.write(conversion, out, shard_max=shard, threads=1)
    assert not out.exists()
    assert [path.name for path in tmp_path.glob(".*")] == [".again.partial"]
    assert merged_model.write(conversion, out, shard_max=shard, threads=1).resumed == len(taken) == 12
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
    assert list(tmp_path.glob(".*")) == []


def test_what_other_options_began_is_not_taken_up_and_not_left(
    tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    conversion = Conversion(find(str(make_run())), "nf4")
    out = tmp_path / "again"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(merged_model, "_write_rest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        merged_model.write(conversion, out, shard_max=SMALL, threads=1)
    assert len(list((tmp_path / ".again.partial").glob("model-*"))) > 4
    assert merged_model.write(conversion, out, threads=1).resumed == 0
    assert list(out.glob("model*")) == [out / "model.safetensors"]


@pytest.mark.parametrize("moment", ["before the first rename", "between the renames", "before the old one is removed"])
def test_an_old_merge_stays_until_the_new_one_is_whole(
    moment: str, tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    run = make_run()
    old = merge(run, "--merge-onto", "base")
    conversion = Conversion(find(str(run)), "nf4")
    out = Path(old["directory"])
    before = weights(out)
    replace = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if (path == out) if moment == "before the first rename" else (target == out):
            raise SystemExit
        return replace(path, target)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        if moment == "before the old one is removed":
            patched.setattr(merged_model.shutil, "rmtree", lambda path: (_ for _ in ()).throw(SystemExit))
        else:
            patched.setattr(Path, "replace", killed)
        merged_model.write(conversion, out, force=True, threads=1)
    with pytest.raises(MedmindError, match="exists already"):
        merged_model.write(conversion, out, threads=1)  # brings the old one back, or finds the new one whole
    assert (weights(out) == before) == (moment != "before the old one is removed")
    assert merged_model.write(conversion, out, force=True, threads=1)
    assert weights(out) != before
    assert list(run.glob(".*")) == []


def test_only_blocks_of_the_weights_are_in_memory(make_base: Callable[..., Path], tmp_path: Path):
    """Peak of numpy's own memory while a 52 MB model with tensors of 17 MB is merged, also by way of NF4."""
    shape = {"hidden": 512, "ffn": 16384, "heads": 8, "heads_kv": 8, "layers": 1, "tied": True}
    base = make_base(**shape)
    adapter = write_adapter(tmp_path / "adapter", all_linear(Shape(**shape)))
    source = find(None, base_name=str(base), adapter=adapter)
    for onto in ("base", "nf4"):
        conversion = Conversion(source, onto)  # type: ignore[arg-type]
        tracemalloc.start()
        made = merged_model.write(conversion, tmp_path / f"onto-{onto}", threads=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert made.bytes > 50_000_000
        assert peak < 24_000_000
