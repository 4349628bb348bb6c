"""The command as a person types it: arguments, results, refusals in one line, interruption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import Shape, all_linear, base_tensors, write_adapter, write_run, write_safetensors

from medmind import console, digests, embedded
from medmind.base import check, fingerprint, weight_files
from medmind_convert.cli import app
from medmind_convert.source import find, split_arguments
from medmind_convert.weights import open_tensors

CLI = [sys.executable, "-m", "medmind_convert.cli"]
WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            return None
        return PathFinder.find_spec(name, path, target)
sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
from medmind_convert.cli import main
sys.argv = ["medmind-convert", *sys.argv[1:]]
main()
"""


def run(*arguments: object, cwd: Path, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "60"}
    return subprocess.run(
        [*(command or CLI), *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


Command = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., str]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in `tmp_path` as `main` does, without a new process for each of many lines."""

    def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["medmind-convert", *map(str, arguments)])
        capfd.readouterr()
        handler = signal.getsignal(signal.SIGTERM)
        code = 0
        try:
            console.run(app)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
        captured = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, captured.out, captured.err)

    return call


@pytest.fixture
def refused(tmp_path: Path, command: Command) -> Refused:
    """Runs the command in `tmp_path`: it must exit with 1, print one error line, and neither make nor change a file."""

    def call(*arguments: object, process: list[str] | None = None) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        everything = set(tmp_path.rglob("*"))
        done = command(*arguments) if process is None else run(*arguments, cwd=tmp_path, command=process)
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if not line.startswith(("converting the newest", "base: "))]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        assert set(tmp_path.rglob("*")) == everything
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
        return lines[0]

    return call


def hidden(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def test_bare_takes_the_newest_run_and_says_so(tmp_path: Path, make_run: Callable[..., Path]):
    older = make_run("older")
    newer = write_run(tmp_path / "runs" / "newer", tmp_path / "base", Shape())
    os.utime(older / "medmind.json", (1, 1))
    done = run("q8_0", cwd=tmp_path, command=[*CLI, "gguf"])
    assert done.returncode == 0, done.stderr
    assert "newest run, runs/newer" in done.stderr
    assert "are the same in transformers and llama.cpp" in done.stderr
    assert (newer / "newer.q8_0.gguf").is_file()
    assert "runs/newer/newer.q8_0.gguf" in done.stdout  # whole, however narrow the terminal
    assert not list(older.glob("*.gguf"))
    assert hidden(tmp_path) == []


def test_several_types_and_a_run_in_one_call_and_json(command: Command, tmp_path: Path, make_run: Callable[..., Path]):
    make_run()
    done = command("gguf", "f16", "Q8_0", "q4_k_m", "runs/trial", "--json", "--threads", "1")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [file["quant"] for file in document["files"]] == ["f16", "q8_0", "q4_k_m"]
    assert [Path(file["file"]).name for file in document["files"]] == [
        "trial.f16.gguf", "trial.q8_0.gguf", "trial.q4_k_m.gguf",
    ]  # fmt: skip
    for file in document["files"]:
        assert (tmp_path / file["file"]).stat().st_size == file["bytes"]
    bits = [file["bits_per_weight"] for file in document["files"]]
    assert 16 < bits[0] < 17 > 9.5 > bits[1] > 8.4
    assert document["check"] == {"texts": 6, "tokens": document["check"]["tokens"], "renderings": 6, "differences": 0}
    assert hidden(tmp_path) == []


def test_the_newest_model_is_what_was_converted(command: Command, make_base: Callable[..., Path]):
    from medmind.artifacts import newest_model

    make_base("my-base")
    done = command("gguf", "bf16", "./my-base")
    assert done.returncode == 0, done.stderr
    assert newest_model() == Path("runs/my-base/my-base.bf16.gguf")


def test_base_and_adapter_out_and_name(command: Command, tmp_path: Path, make_base: Callable[..., Path]):
    make_base()
    write_adapter(tmp_path / "lora", all_linear(Shape()))
    done = command("gguf", "q8_0", "--base", "base", "--adapter", "lora", "--out", "deep/er", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "deep" / "er" / "mine.q8_0.gguf").is_file()


def test_an_adapter_directory_finds_the_base_it_names(command: Command, tmp_path: Path, make_base: Callable[..., Path]):
    write_adapter(tmp_path / "lora", all_linear(Shape()), base_model_name_or_path=str(make_base()))
    done = command("gguf", "q8_0", "./lora")
    assert done.returncode == 0, done.stderr
    assert "base: lora records no digest of it; only shapes can tell whether" in done.stderr
    assert (tmp_path / "runs" / "lora" / "lora.q8_0.gguf").is_file()


def test_force_replaces_and_without_it_the_old_file_stays(
    refused: Refused, command: Command, make_run: Callable[..., Path]
):
    file = make_run() / "trial.q8_0.gguf"
    file.write_bytes(b"old")
    line = refused("gguf", "f16", "q8_0", "runs/trial")
    assert "trial.q8_0.gguf exists already" in line
    assert "--force" in line
    assert command("gguf", "q8_0", "runs/trial", "--force").returncode == 0
    assert file.read_bytes()[:4] == b"GGUF"


def test_converts_where_torch_is_not_installed(tmp_path: Path, make_run: Callable[..., Path]):
    make_run()
    blocked = ("torch", "mistral_common", "peft", "bitsandbytes")
    command = [sys.executable, "-c", WITHOUT_TORCH.format(blocked=blocked)]
    done = run("gguf", "q4_0", "runs/trial", cwd=tmp_path, command=command)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 2  # what lies beside, and the check: nothing of a library


def test_converting_never_imports_torch(tmp_path: Path, make_run: Callable[..., Path]):
    make_run()
    code = "import sys; from medmind_convert.cli import app, main\n" + (
        "try: main()\nexcept SystemExit as end:\n assert not end.code, end.code\n"
        "loaded = [name for name in sys.modules if name.startswith('torch.')]\nassert not loaded, loaded"
    )
    done = run("gguf", "q8_0", "runs/trial", cwd=tmp_path, command=[sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("blocked", "extra"), [("llama_cpp", "convert"), ("transformers", "convert"), ("gguf", "convert")]
)
def test_a_missing_extra_is_one_line_with_the_install_command(
    refused: Refused, blocked: str, extra: str, tmp_path: Path, make_run: Callable[..., Path]
):
    make_run()
    process = [sys.executable, "-c", WITHOUT_TORCH.format(blocked=("torch", blocked))]
    line = refused("gguf", "q8_0", "runs/trial", process=process)
    assert blocked in line
    assert f"pip install 'medmind[{extra}]'" in line


def test_help_needs_no_heavy_library(tmp_path: Path):
    heavy = ("torch", "transformers", "llama_cpp", "gguf", "numpy", "safetensors", "sentencepiece")
    for arguments in ([], ["gguf"], ["info"]):
        command = [sys.executable, "-c", WITHOUT_TORCH.format(blocked=heavy)]
        done = run(*arguments, "--help", cwd=tmp_path, command=command)
        assert done.returncode == 0, done.stderr


def damage_config(base: Path, **change: Any) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))


def drop(base: Path, name: str) -> None:
    tensors = base_tensors(Shape())
    del tensors[name]
    write_safetensors(base / "model.safetensors", tensors, "BF16")


def add(base: Path, name: str) -> None:
    write_safetensors(base / "model.safetensors", {**base_tensors(Shape()), name: np.ones(3, np.float32)}, "BF16")


def poison(base: Path, value: float = np.nan) -> None:
    tensors = base_tensors(Shape())
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = value
    write_safetensors(base / "model.safetensors", tensors, "BF16")


def retype(base: Path) -> None:
    """Say I16 for the first BF16: same bytes, another type."""
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"BF16"', b'"I16" ', 1))


def cut(base: Path) -> None:
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


Header = dict[str, Any]


def edit_header(file: Path, change: Callable[[Header], object], *, more: bytes = b"") -> None:
    """Change a safetensors file's header and leave its data as it is."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :] + more)


def shift(name: str, begin: int, end: int) -> Callable[[Header], object]:
    """Move a tensor's offsets."""

    def change(header: Header) -> None:
        offsets = header[name]["data_offsets"]
        header[name]["data_offsets"] = [offsets[0] + begin, offsets[1] + end]

    return change


def reheaded(change: Callable[[Header], object], *, more: bytes = b"") -> Callable[[Path], None]:
    return lambda base: edit_header(base / "model.safetensors", change, more=more)


def sharded(base: Path, change: Callable[[dict[str, str]], object]) -> None:
    """Two shards, the embedding in the first, and an index that was changed."""
    tensors = base_tensors(Shape())
    first = {"model.embed_tokens.weight": tensors.pop("model.embed_tokens.weight")}
    (base / "model.safetensors").unlink()
    placed = {}
    for number, part in enumerate((first, tensors), 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(base / name, part, "BF16")
        placed |= dict.fromkeys(part, name)
    change(placed)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))


def without_shard(base: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))


def fewer_rows(base: Path) -> None:
    """Config and weights of 300 tokens beside a tokenizer of 380."""
    damage_config(base, vocab_size=300)
    write_safetensors(base / "model.safetensors", base_tensors(Shape(vocab=300)), "BF16")


def pickle_only(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def escape(base: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "../base/model.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))


BAD_BASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda base: (base / "config.json").unlink(), "no base model (no config.json)"),
    "pickle": (pickle_only, "pickle only"),
    "architecture": (lambda base: damage_config(base, architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
    "experts": (lambda base: damage_config(base, architectures=["MixtralForCausalLM"]), "is a MixtralForCausalLM"),
    "experts by another name": (
        lambda base: add(base, "model.layers.0.block_sparse_moe.gate.weight"), "model.layers.0.block_sparse_moe.gate",
    ),
    "no tokenizer": (lambda base: (base / "tokenizer.model").unlink(), "holds no tokenizer"),
    "broken tokenizer": (lambda base: (base / "tokenizer.model").write_bytes(b"no"), "does not load"),
    "config is no JSON": (lambda base: (base / "config.json").write_text("{"), "not valid JSON"),
    "no dimension": (lambda base: damage_config(base, hidden_size=None), "hidden_size as null"),
    "rope scaling": (
        lambda base: damage_config(base, rope_scaling={"rope_type": "yarn", "factor": 4.0}), "positions by 'yarn'",
    ),
    "activation": (lambda base: damage_config(base, hidden_act="gelu"), "activation gelu"),
    "quantized": (lambda base: damage_config(base, quantization_config={"bits": 4}), "is quantized already"),
    "other shape": (lambda base: damage_config(base, intermediate_size=128), "gate_proj.weight in"),
    "missing tensor": (lambda base: drop(base, "model.norm.weight"), "lacks the tensor model.norm.weight"),
    "unknown tensor": (lambda base: add(base, "vision.proj.weight"), "holds the tensor vision.proj.weight"),
    "NaN": (poison, "model.layers.1.mlp.down_proj.weight"),
    "infinity": (lambda base: poison(base, -np.inf), "model.layers.1.mlp.down_proj.weight"),
    "shape of another size": (
        reheaded(lambda header: header["model.norm.weight"].update(shape=[63])), "model.norm.weight in",
    ),
    "a shape beyond counting": (
        reheaded(lambda header: header["model.norm.weight"].update(shape=[10**30])), "model.norm.weight in",
    ),
    "overlap": (
        reheaded(shift("model.norm.weight", -2, 0)),
        "model.norm.weight in {base}/model.safetensors overlaps model.layers.1.mlp.down_proj.weight by 2 bytes",
    ),
    "one in another's place": (
        reheaded(lambda header: header["lm_head.weight"].update(header["model.embed_tokens.weight"])),
        "in {base}/model.safetensors overlaps ",
    ),
    "gap": (
        reheaded(shift("model.norm.weight", 2, 2)),
        "model.norm.weight in {base}/model.safetensors lies after 2 bytes that are no tensor's",
    ),
    "gap at the start": (
        reheaded(lambda header: header.pop("model.embed_tokens.weight")), "lies after 49152 bytes that are no tensor's",
    ),
    "beyond the file": (
        reheaded(shift("lm_head.weight", 0, 7)), "lm_head.weight ends 7 bytes after the file",
    ),
    "far beyond the file": (
        reheaded(shift("lm_head.weight", 0, 10**30)), f"lm_head.weight ends {10**30} bytes after the file",
    ),
    "backwards": (reheaded(shift("lm_head.weight", 0, -(10**9))), "lm_head.weight has no offsets that can be"),
    "bytes of none": (
        reheaded(lambda header: None, more=b"more"), "holds 4 bytes after lm_head.weight, its last tensor",
    ),
    "wrong shard": (
        lambda base: sharded(base, lambda placed: placed.update({"lm_head.weight": min(placed.values())})),
        "{base}/model.safetensors.index.json places lm_head.weight in model-00001-of-00002.safetensors, "
        "which does not hold it: it lies in model-00002-of-00002.safetensors",
    ),
    "in no shard": (
        lambda base: sharded(base, lambda placed: placed.update({"more": min(placed.values())})),
        "places more in model-00001-of-00002.safetensors, which does not hold it, nor does any other shard",
    ),
    "in no index": (
        lambda base: sharded(base, lambda placed: placed.pop("model.norm.weight")),
        "{base}/model-00002-of-00002.safetensors holds model.norm.weight, which model.safetensors.index.json places",
    ),
    "missing shard": (without_shard, "lacks the shard model-00002-of-00002.safetensors"),
    "tokenizer of another size": (fewer_rows, "has 380 tokens, the embedding 300 rows"),
    "integer tensor": (retype, "is of type I16"),
    "cut off": (cut, "is cut off"),
    "path outside": (escape, "outside its folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD_BASES))
def test_an_unusable_base_is_refused_in_one_line(
    refused: Refused, case: str, tmp_path: Path, make_base: Callable[..., Path]
):
    damage, words = BAD_BASES[case]
    damage(make_base())
    assert words.replace("{base}", str(tmp_path / "base")) in refused("gguf", "q4_k_m", "./base")


def test_shards_that_the_index_names_rightly_are_one_model(make_base: Callable[..., Path]):
    whole = make_base("whole")
    sharded(base := make_base(), lambda placed: None)
    of_both = [open_tensors(weight_files(folder)) for folder in (whole, base)]
    assert check(base) == check(whole)
    assert of_both[0].keys() == of_both[1].keys()
    for name, tensor in of_both[0].items():
        assert np.array_equal(tensor.rows(slice(None)), of_both[1][name].rows(slice(None)))


Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
ADAPTER_FILE = "lora/adapter_model.safetensors"


def with_key(name: str, *shape: int) -> Callable[[Path], None]:
    """An adapter's file with one tensor more."""

    def damage(adapter: Path) -> None:
        file = adapter / "adapter_model.safetensors"
        tensors = {n: tensor.rows(slice(None)) for n, tensor in open_tensors([file]).items()}
        write_safetensors(file, {**tensors, name: np.ones(shape, np.float32)}, "F32")

    return damage


def lora_header(change: Callable[[Header], object]) -> Callable[[Path], None]:
    return lambda adapter: edit_header(adapter / "adapter_model.safetensors", change)


def deeper(header: Header) -> None:
    """Say layer 9 for layer 1."""
    for name in list(header):
        header[name.replace("layers.1.", "layers.9.")] = header.pop(name)


BAD_ADAPTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown key": (with_key("surprise", 3), f"{ADAPTER_FILE} holds surprise, which"),
    "a module saved whole": (
        with_key("base_model.model.lm_head.weight", 384, 64),
        f"{ADAPTER_FILE} holds base_model.model.lm_head.weight, which",
    ),
    "a trained embedding": (
        with_key("base_model.model.model.embed_tokens.lora_embedding_A", 4, 384), "lora_embedding_A, which medmind",
    ),
    "a bias": (with_key(f"{Q0}.bias", 64), f"{Q0}.bias, which"),
    "a magnitude without DoRA": (
        with_key(f"{Q0}.lora_magnitude_vector", 64), f"{Q0}.lora_magnitude_vector, which",
    ),
    "half a pair": (
        with_key("base_model.model.lm_head.lora_A.weight", 4, 64),
        f"{ADAPTER_FILE} lacks base_model.model.lm_head.lora_B.weight",
    ),
    "a layer that the base has not": (
        lora_header(deeper),
        f"layers.9.mlp.down_proj.lora_A.weight in {ADAPTER_FILE} has no counterpart there",
    ),
    "overlap": (lora_header(shift(f"{Q0}.lora_B.weight", -4, -4)), f"{Q0}.lora_B.weight in {ADAPTER_FILE} overlaps"),
    "gap": (lora_header(lambda header: header.pop(f"{Q0}.lora_A.weight")), "lies after 1024 bytes that are no"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD_ADAPTERS))
def test_an_unusable_adapter_is_refused_in_one_line(
    refused: Refused, case: str, tmp_path: Path, make_base: Callable[..., Path]
):
    damage, words = BAD_ADAPTERS[case]
    adapter = write_adapter(tmp_path / "lora", all_linear(Shape()), base_model_name_or_path=str(make_base()))
    damage(adapter)
    line = refused("gguf", "q4_k_m", "./lora")
    assert words in line
    assert " — " in line  # what to do about it


@pytest.mark.parametrize("named", [("merge",), ("adapter",), ("plan",), ("imatrix", "--text", "text.txt")])
def test_every_command_refuses_what_is_left_over(
    refused: Refused, named: tuple[str, ...], tmp_path: Path, make_base: Callable[..., Path]
):
    (tmp_path / "text.txt").write_text("the heart " * 300)
    base = make_base()
    adapter = write_adapter(tmp_path / "lora", all_linear(Shape()), base_model_name_or_path=str(base))
    with_key("surprise", 3)(adapter)
    assert "holds surprise, which medmind cannot merge" in refused(*named, "./lora")
    edit_header(base / "model.safetensors", shift("model.norm.weight", 2, 2))
    assert "model.norm.weight in" in refused(*named, "./lora")


def test_bad_arguments_are_one_line_each(refused: Refused, tmp_path: Path, make_run: Callable[..., Path]):
    run_dir = make_run()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    write_adapter(tmp_path / "lora", {"lm_head": (384, 64)})
    for arguments, words in (
        (["q4_k_n", "runs/trial"], "did you mean q4_k"),
        (["q4_k_m", "nosuch"], "'nosuch' is no quantization, and no run, base or adapter of that name exists"),
        (["runs/trial"], "no quantization named"),
        (["q8_0", "runs/gone"], "runs/gone"),
        (["q8_0", "/no/such/run"], "/no/such/run does not exist"),
        (["q8_0", "./file.txt"], "file.txt is a file"),
        (["q8_0", "./empty"], "no run (no medmind.json)"),
        (["q8_0", "./base", "runs/trial"], "two models named"),
        (["q8_0", "./base", "--base", "base"], "two bases named"),
        (["q8_0", "runs/trial", "--adapter", "lora"], "has its own adapter"),
        (["q8_0", "./lora"], "does not say which base"),
        (["q8_0", "--adapter", "gone"], "gone does not exist"),
        (["q8_0", "--base", "gone"], "no base model 'gone'"),
        (["q8_0", "runs/trial", "--name", "../x"], "cannot be a file name"),
        (["q8_0", "runs/trial", "--name", ""], "the name is empty"),
        (["q8_0", "./base", "--name", ""], "the name is empty"),
    ):
        assert words in refused("gguf", *arguments), arguments
    (run_dir / "medmind.json").unlink()
    assert "has not finished" in refused("gguf", "q8_0", "runs/trial")
    assert "no finished run" in refused("gguf", "q8_0")


def test_a_type_that_is_garbage_without_importance_is_refused(refused: Refused, make_run: Callable[..., Path]):
    make_run(hidden=256, ffn=256)
    line = refused("gguf", "q8_0", "iq2_xs", "runs/trial")
    assert "iq2_xs needs an importance matrix" in line
    assert "take q2_k" in line


def test_a_run_on_another_base_is_refused(refused: Refused, tmp_path: Path, make_run: Callable[..., Path]):
    make_run()
    write_safetensors(tmp_path / "base" / "model.safetensors", base_tensors(Shape(), seed=9), "BF16")
    assert "is not the one that runs/trial/adapter was trained on" in refused("gguf", "q8_0", "runs/trial")
    shutil.rmtree(tmp_path / "base")
    assert "which is gone" in refused("gguf", "q8_0", "runs/trial")


def test_every_command_asks_whether_a_base_is_the_adapters(
    refused: Refused, tmp_path: Path, make_run: Callable[..., Path], make_base: Callable[..., Path]
):
    """Another base of the same shapes; of an adapter that lies in no run nothing is known, and it passes."""
    adapter = make_run() / "adapter"
    other = make_base("other", base_tensors(Shape(), seed=9))
    own, strange = (fingerprint(folder)[:19] for folder in (tmp_path / "base", other))
    (tmp_path / "linked").symlink_to(adapter)
    for command in (["gguf", "q8_0"], ["merge"], ["plan"]):
        for source in (["--adapter", "runs/trial/adapter"], ["runs/trial"], ["--adapter", "linked"]):
            line = refused(*command, *source, "--base", "other")
            said = f"{other} ({strange}…) is not the one that {source[-1].removeprefix('./')}"
            assert said in line, (command, source)
            assert f"medmind.json records {tmp_path / 'base'} ({own}…)" in line
            assert "give that one with --base" in line
    assert "is not the one that runs/trial/adapter" in refused("adapter", "runs/trial/adapter", "--base", "other")
    alone = shutil.copytree(adapter, tmp_path / "alone")
    assert find(None, base_name=str(other), adapter=alone).base_digest.startswith(strange)


def test_an_adapter_of_other_dimensions_is_refused(refused: Refused, tmp_path: Path, make_run: Callable[..., Path]):
    write_adapter(make_run() / "adapter", all_linear(Shape(hidden=128)))
    line = refused("gguf", "q8_0", "runs/trial")
    assert "does not match the base" in line
    assert "_proj.lora_" in line


def test_an_adapter_changed_after_training_is_refused(refused: Refused, make_run: Callable[..., Path]):
    write_adapter(make_run() / "adapter", all_linear(Shape()), seed=5)
    assert "are not those the run recorded" in refused("gguf", "q8_0", "runs/trial")


def test_a_run_copied_without_its_rows_is_found_without_them(make_run: Callable[..., Path]):
    run_dir = make_run()
    manifest = json.loads((run_dir / "medmind.json").read_text(encoding="utf-8"))
    (run_dir / "medmind.json").write_text(json.dumps(manifest | {"rows": "left out"}), encoding="utf-8")
    (run_dir / "heldout.jsonl").unlink()
    found = find(str(run_dir))
    assert (found.run, found.heldout) == ("trial", ())


def test_the_embedded_run_is_found_by_its_name_and_read_from_the_package(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    found = find(embedded.TUNED)
    assert found.adapter == embedded.FOLDER / embedded.TUNED / "adapter"
    assert (found.base.path, found.out) == (embedded.FOLDER / embedded.BASE, Path("runs/medmind-tiny"))
    assert split_arguments(["q8_0", embedded.TUNED])[1] == embedded.TUNED
    (tmp_path / "runs" / "medmind-tiny").mkdir(parents=True)
    assert "named medmind-tiny alone" in refused("gguf", "q8_0", "runs/medmind-tiny")


@pytest.mark.parametrize("name", [embedded.BASE, embedded.TUNED])
def test_a_damaged_embedded_model_is_named_and_not_converted(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    shutil.copytree(embedded.FOLDER, tmp_path / "package", copy_function=os.symlink)
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "package")
    digests.verified.cache_clear()
    (weights,) = (tmp_path / "package" / name).rglob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    assert f"{weights} is damaged" in refused("gguf", "q8_0", name)
    digests.verified.cache_clear()
    assert not (tmp_path / "runs").exists()


def test_damaged_held_out_rows_are_refused(refused: Refused, tmp_path: Path, make_run: Callable[..., Path]):
    run_dir = make_run(heldout=[{"id": "a", "messages": "none"}])
    assert "row 1 of" in refused("gguf", "q8_0", "runs/trial")
    (run_dir / "heldout.jsonl").unlink()
    assert "heldout.jsonl does not exist" in refused("gguf", "q8_0", "runs/trial")


def test_a_full_disk_is_refused_before_the_work(
    tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from medmind import artifacts
    from medmind.errors import MedmindError
    from medmind_convert import convert, quants, source

    run_dir = make_run()
    usage = type(shutil.disk_usage(tmp_path))(10**12, 10**12 - 10**5, 10**5)
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(convert, "Partial", lambda *_: pytest.fail("work began"))
    with pytest.raises(MedmindError, match=r"the conversion needs .* KiB and .* has 97\.66 KiB free"):
        convert.convert(source.find(str(run_dir)), quants.parse(["q8_0", "f32"]))


def test_what_a_file_takes_is_known_to_the_byte_before_the_work(make_base: Callable[..., Path], tmp_path: Path):
    from medmind_convert import convert, quants, source

    for options in ({"hidden": 256, "ffn": 512, "vocab": 2048}, {"hidden": 96, "ffn": 160, "heads": 3, "heads_kv": 3}):
        conversion = convert.Conversion(source.find(str(make_base(**options)), out=tmp_path / "out"))
        chosen = quants.parse(["q8_0", "q4_k_m", "q3_k_s", "f16"])
        foretold = {
            quant: conversion.layouts(quant.ftype, conversion.types(quant, imatrix=False))[0].size for quant in chosen
        }
        results, _ = convert.convert(conversion, chosen, convert.Options(force=True))
        assert {result.quant: result.file.stat().st_size for result in results} == foretold


SLOWLY = """
import time
from medmind_convert import cli, ggml
quantize = ggml.quantize
def slowly(*arguments):
    time.sleep(0.3)
    return quantize(*arguments)
ggml.quantize = slowly
cli.main()
"""
"""The command, every block of which takes long enough to be interrupted before the next."""


def begun(run_dir: Path) -> "subprocess.Popen[str]":
    """A conversion that has finished a tensor, and not all."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "gguf", "iq4_nl", "runs/trial", "--threads", "1"],
        cwd=run_dir.parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    journal = run_dir / ".trial.iq4_nl.gguf.journal"
    deadline = time.monotonic() + 60
    while not journal.exists() or b'{"tensor"' not in journal.read_bytes():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_ended_conversion_keeps_what_is_finished_and_goes_on(
    sent: signal.Signals, code: int, command: Command, tmp_path: Path, make_run: Callable[..., Path]
):
    """A person's Ctrl-C, which reaches the whole group, and the system's request; test_killed.py has SIGKILL."""
    run_dir = make_run()
    process = begun(run_dir)
    try:
        os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "start the same command again to go on" in errors
    assert not list(run_dir.glob("*.gguf"))
    done = command("gguf", "iq4_nl", "runs/trial", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "tensors are there already" in done.stderr
    assert hidden(tmp_path) == []
    resumed = (run_dir / "trial.iq4_nl.gguf").read_bytes()
    assert command("gguf", "iq4_nl", "runs/trial", "--force").returncode == 0
    assert (run_dir / "trial.iq4_nl.gguf").read_bytes() == resumed


def test_info_shows_metadata_and_tensors(
    refused: Refused, command: Command, tmp_path: Path, make_run: Callable[..., Path]
):
    make_run()
    assert command("gguf", "q8_0", "runs/trial").returncode == 0
    file = "runs/trial/trial.q8_0.gguf"
    shown = command("info", file).stdout
    assert "medmind.system_prompt = Answer briefly." in shown
    assert "blk.1.attn_q.weight" in shown
    assert "weights" in shown.splitlines()[-1]
    document = json.loads(command("info", file, "--json").stdout)
    assert document["parameters"] == sum(int(np.prod(t["shape"])) for t in document["tensors"])
    assert document["metadata"]["tokenizer.ggml.tokens"]["length"] == 384
    whole = (tmp_path / file).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.gguf").write_text("hello")
    assert "cut off or damaged" in refused("info", "cut.gguf")
    assert "is not a GGUF file" in refused("info", "text.gguf")
    assert "gone.gguf is no file" in refused("info", "gone.gguf")
