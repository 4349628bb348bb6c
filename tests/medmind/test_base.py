"""Which directories can serve as a base model, and how two of them are told apart."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from medmind import base
from medmind.errors import MedmindError

SHARD = "model-00001-of-00002.safetensors"


def refused(path: Path) -> str:
    with pytest.raises(MedmindError) as caught:
        base.check(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_whole_directory_passes(model_dir: Path) -> None:
    assert base.check(model_dir)["architectures"] == ["MistralForCausalLM"]
    assert [file.name for file in base.weight_files(model_dir)] == [SHARD, "model-00002-of-00002.safetensors"]


def test_the_embedded_base_is_a_whole_directory() -> None:
    if not base.EMBEDDED_PATH.is_dir():
        pytest.skip("this tree has no embedded base yet")
    found = base.resolve(base.EMBEDDED_NAME, fetch=lambda *_: pytest.fail("no hub for the embedded base"))
    assert (found.kind, found.revision) == ("embedded", None)


def test_a_directory_without_config_is_refused(model_dir: Path) -> None:
    (model_dir / "config.json").unlink()
    assert "no config.json" in refused(model_dir)


@pytest.mark.parametrize("named", [["GPT2LMHeadModel"], [], None])
def test_an_architecture_that_is_not_supported_is_refused_by_name(model_dir: Path, named: object) -> None:
    (model_dir / "config.json").write_text(json.dumps({"architectures": named}))
    line = refused(model_dir)
    assert "does not support" in line
    assert "MistralForCausalLM, LlamaForCausalLM" in line


@pytest.mark.parametrize("named", [7, "MistralForCausalLM"])
def test_architectures_of_a_wrong_type_are_refused_by_field(model_dir: Path, named: object) -> None:
    (model_dir / "config.json").write_text(json.dumps({"architectures": named}))
    assert f"config.json gives architectures as {json.dumps(named)} — it must be a list" in refused(model_dir)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.ckpt"])
def test_pickle_weights_alone_are_refused(model_dir: Path, name: str) -> None:
    for file in model_dir.glob("model*"):
        file.unlink()
    (model_dir / name).write_bytes(b"pickle")
    assert f"pickle only ({name})" in refused(model_dir)


def test_a_directory_without_weights_is_refused(model_dir: Path) -> None:
    for file in model_dir.glob("model*"):
        file.unlink()
    assert "no weights" in refused(model_dir)


def test_a_missing_shard_is_named(model_dir: Path) -> None:
    (model_dir / SHARD).unlink()
    assert f"lacks the shard {SHARD}" in refused(model_dir)


@pytest.mark.parametrize("keep", [-1, 40, 4, 0])
def test_a_shard_that_is_cut_off_is_named(model_dir: Path, keep: int) -> None:
    shard = model_dir / SHARD
    shard.write_bytes(shard.read_bytes()[:keep])
    line = refused(model_dir)
    assert SHARD in line
    assert "cut off" in line


def header(document: object) -> bytes:
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a zip, as torch.save writes it",
        struct.pack("<Q", 1 << 62) + b"{}",
        header([1, 2]),
        header("text"),
        header({"a": 1}),
        header({"a": {"data_offsets": "no"}}),
        header({"a": {"data_offsets": [0, "far"]}}),
        header({"a": {"data_offsets": [True, False]}}),
        header({"a": {"data_offsets": [8, 0]}}),
        header({"a": {"data_offsets": [-1, 0]}}),
        struct.pack("<Q", 50_000) + b"[" * 50_000,
    ],
)
def test_what_is_no_safetensors_file_is_one_line(model_dir: Path, content: bytes) -> None:
    (model_dir / SHARD).write_bytes(content)
    assert "not a safetensors file" in refused(model_dir)


def filled(*spans: tuple[int, int], size: int = 8) -> bytes:
    """A file of tensors a, b, … that say they lie there, and `size` bytes of data."""
    entries = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in zip("abc", spans, strict=False)
    }
    return header(entries) + b"x" * size


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (filled((0, 5), (4, 8)), f"b in {{}}/{SHARD} overlaps a by 1 bytes"),
        (filled((0, 8), (0, 8)), f"b in {{}}/{SHARD} overlaps a by 8 bytes"),
        (filled((6, 8), (0, 5)), f"a in {{}}/{SHARD} lies after 1 bytes that are no tensor's"),
        (filled((1, 8)), "a in {}/model-00001-of-00002.safetensors lies after 1 bytes that are no tensor's"),
        (filled((0, 4), (4, 9)), f"{{}}/{SHARD} is cut off, or its header damaged: b ends 1 bytes after the file"),
        (filled((0, 7)), f"{{}}/{SHARD} holds 1 bytes after a, its last tensor"),
        (filled(), f"{{}}/{SHARD} holds 8 bytes and no tensor"),
    ],
)
def test_tensors_that_do_not_fill_their_file_are_named(model_dir: Path, content: bytes, words: str) -> None:
    (model_dir / SHARD).write_bytes(content)
    line = refused(model_dir)
    assert words.format(model_dir) in line
    assert "again" in line


def test_tensors_may_lie_in_any_order_and_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(filled((5, 8), (0, 5), (5, 5)))
    assert list(base.safetensors_header(tmp_path / "a.safetensors")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("placed", "words"),
    [
        ({"a": 1, "b": 1}, f"places b in {SHARD}, which does not hold it, nor does any other shard"),
        (
            {"a": 2, "b": 2, "c": 1},
            f"places a in model-00002-of-00002.safetensors, which does not hold it: it lies in {SHARD}",
        ),
        ({"a": 1, "c": 2}, "places c in"),
    ],
)
def test_an_index_that_places_a_tensor_wrongly_is_refused(model_dir: Path, placed: dict[str, int], words: str) -> None:
    index = {name: f"model-0000{number}-of-00002.safetensors" for name, number in placed.items()}
    (model_dir / base.INDEX).write_text(json.dumps({"weight_map": index}))
    line = refused(model_dir)
    assert words in line
    assert f"{model_dir / base.INDEX} places" in line


def test_a_tensor_that_the_index_does_not_name_is_refused(model_dir: Path) -> None:
    (model_dir / SHARD).write_bytes(filled((0, 4), (4, 8)))
    (model_dir / base.INDEX).write_text(json.dumps({"weight_map": {"a": SHARD}}))
    assert f"{model_dir / SHARD} holds b, which {base.INDEX} places elsewhere or not at all" in refused(model_dir)


@pytest.mark.parametrize("name", ["../other.safetensors", "/tmp/x", "a/b.safetensors", "..\\x", "C:x", "..", "."])
def test_an_index_that_leaves_its_folder_is_refused(model_dir: Path, name: str) -> None:
    (model_dir / base.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    assert "outside its folder" in refused(model_dir)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": None}])
def test_an_index_without_names_is_refused(model_dir: Path, index: object) -> None:
    (model_dir / base.INDEX).write_text(json.dumps(index))
    assert "names no weights" in refused(model_dir)


def test_a_directory_without_tokenizer_is_refused(model_dir: Path) -> None:
    (model_dir / "tokenizer.json").unlink()
    base.check(model_dir)
    (model_dir / "tokenizer.model").unlink()
    assert "no tokenizer" in refused(model_dir)


def test_a_header_gives_its_tensors_without_the_metadata(tmp_path: Path) -> None:
    document = {"__metadata__": {"format": "pt"}, "a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}
    (tmp_path / "a.safetensors").write_bytes(header(document) + b"xy")
    assert list(base.safetensors_header(tmp_path / "a.safetensors")) == ["a"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer.model", SHARD])
@pytest.mark.parametrize("position", [0, -1, "middle"])
def test_the_fingerprint_changes_with_any_byte(model_dir: Path, name: str, position: object) -> None:
    before = base.fingerprint(model_dir)
    assert before == base.fingerprint(model_dir)
    content = bytearray((model_dir / name).read_bytes())
    content[len(content) // 2 if position == "middle" else position] ^= 1  # type: ignore[index]
    (model_dir / name).write_bytes(content)
    assert base.fingerprint(model_dir) != before


def test_a_large_model_is_told_apart_by_its_ends_and_sizes(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, make_safetensors: Callable[..., bytes]
) -> None:
    monkeypatch.setattr(base, "_WHOLE_DIGEST_LIMIT", 1000)
    monkeypatch.setattr(base, "_SAMPLE", 1000)
    whole = make_safetensors(300_000)
    found = set()
    for content in (whole, whole[:-1] + b"\x07", whole[:200] + b"\x07" + whole[201:], make_safetensors(300_001)):
        (model_dir / SHARD).write_bytes(content)
        found.add(base.fingerprint(model_dir))
    assert len(found) == 4


def test_names_lead_to_the_embedded_base_a_directory_or_the_hub(model_dir: Path) -> None:
    asked = []

    def fetch(name: str, revision: str | None) -> tuple[Path, str]:
        asked.append((name, revision))
        return model_dir, "c0ffee"

    local = base.resolve(str(model_dir), fetch=fetch)
    assert (local.kind, local.path, asked) == ("local", model_dir.resolve(), [])
    remote = base.resolve("someone/some-model", revision="v1", fetch=fetch)
    assert (remote.kind, remote.revision, asked) == ("hub", "c0ffee", [("someone/some-model", "v1")])


@pytest.mark.parametrize("name", ["nothing", "./a/b", "../up/down", "a/b/c", "owner/", "a\\b/c"])
def test_a_name_that_leads_nowhere_is_one_line(name: str) -> None:
    with pytest.raises(MedmindError, match="there is no base model"):
        base.resolve(name, fetch=lambda *_: pytest.fail("not a hub id"))


def test_a_path_below_an_existing_folder_is_not_taken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not base.looks_like_hub_id("models/mistral")
    assert base.looks_like_hub_id("mistralai/Mistral-7B-Instruct-v0.3")
