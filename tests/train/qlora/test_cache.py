"""What is kept between two starts: found again, never trusted blindly, never in the way."""

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from medmind.base import EMBEDDED_PATH
from medmind_train import cache, data, encoding, prepared_cache, token_cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("MEDMIND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rows(data: Path):
    return prepared_cache.data.prepare(str(data), heldout_share=0.3).train


@pytest.fixture
def encodings(monkeypatch) -> list[int]:
    """How many rows were encoded, call by call."""
    calls, real = [], encoding.encode

    def counting(tokenizer, rows, **settings):
        calls.append(len(rows))
        return real(tokenizer, rows, **settings)

    monkeypatch.setattr(encoding, "encode", counting)
    return calls


def encode(tokenizer, rows, *, digest="one", context=64, system=""):
    return token_cache.encode(tokenizer, EMBEDDED_PATH, rows, digest, context=context, system=system)


def files(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / kind).iterdir())


def test_second_time_is_read_and_is_the_same(tokenizer, rows, encodings, folder: Path):
    first, second = encode(tokenizer, rows, context=24), encode(tokenizer, rows, context=24)
    assert encodings == [len(rows)]
    assert first == second and first.counts() == second.counts() and first.cut > 0
    assert list(second.examples) == list(encoding.encode(tokenizer, rows, context=24).examples)
    assert len(files(folder, "tokens")) == 1


def test_token_ids_are_mapped_and_not_held(tokenizer, rows):
    import numpy as np

    assert isinstance(encode(tokenizer, rows).examples.arrays.ids, np.memmap)


def test_dropped_rows_are_remembered(tokenizer, row, encodings):
    rows = [row("a", "Why?", "Stop </s> here."), row("b", "Why? " * 90, "So."), row("c", "Why?", "So.")]
    for _ in range(2):
        encoded = encode(tokenizer, rows)
        assert (encoded.control, encoded.too_long) == (("a",), ("b",))
    assert encodings == [3]


@pytest.mark.parametrize("other", [{"digest": "two"}, {"context": 65}, {"system": "Be kind."}])
def test_another_input_is_another_entry(tokenizer, rows, encodings, other):
    encode(tokenizer, rows)
    encode(tokenizer, rows, **other)
    assert len(encodings) == 2


def test_another_template_or_other_code_is_another_entry(tokenizer, rows, encodings, monkeypatch):
    encode(tokenizer, rows)
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "chat_template", tokenizer.chat_template + " ")
        encode(tokenizer, rows)
    assert len(encodings) == 2
    monkeypatch.setattr(cache, "code", lambda modules: f"{len(list(modules))} modules, written anew")
    encode(tokenizer, rows)
    assert len(encodings) == 3


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.write_text("not ours", encoding="utf-8")


def _of_other_data(path: Path) -> None:
    other = path.parent / "elsewhere"
    assert other.exists()
    other.replace(path)


@pytest.mark.parametrize("spoil", [_cut, _changed, _empty, _foreign, _of_other_data])
def test_torn_or_foreign_tokens_are_made_anew(tokenizer, rows, encodings, folder: Path, spoil):
    right = list(encode(tokenizer, rows).examples)
    (path,) = files(folder, "tokens")
    encode(tokenizer, rows[:3], digest="other")
    (other,) = [one for one in files(folder, "tokens") if one != path]
    other.replace(path.parent / "elsewhere")
    spoil(path)
    assert list(encode(tokenizer, rows).examples) == right
    assert len(encodings) == 3
    assert list(encode(tokenizer, rows).examples) == right and len(encodings) == 3


@pytest.mark.parametrize("spoil", [_cut, _changed, _empty, _foreign])
def test_torn_or_foreign_prepared_data_is_made_anew(data: Path, folder: Path, spoil):
    right = prepared_cache.prepare(str(data), heldout_share=0.3)
    (path,) = files(folder, "data")
    spoil(path)
    assert prepared_cache.prepare(str(data), heldout_share=0.3) == right
    assert prepared_cache.read(path, path.name) == right


def test_prepared_data_is_read_and_is_the_same(data: Path, monkeypatch):
    real = prepared_cache.data.prepare
    first = prepared_cache.prepare(str(data), heldout_share=0.3)
    monkeypatch.setattr(prepared_cache.data, "prepare", lambda *_, **__: pytest.fail("it was prepared again"))
    second = prepared_cache.prepare(str(data), heldout_share=0.3)
    assert second == first == real(str(data), heldout_share=0.3)
    assert second.counts.to_dict() == first.counts.to_dict() and type(second.train[0]) is type(first.train[0])


def test_changed_source_or_setting_is_prepared_anew(data: Path, tmp_path: Path):
    source = tmp_path / "source.jsonl"
    source.write_bytes(data.read_bytes())
    first = prepared_cache.prepare(str(source), heldout_share=0.3)
    before = source.stat()
    source.write_bytes(data.read_bytes().replace(b"fades", b"faded"))
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert prepared_cache.prepare(str(source), heldout_share=0.3).digest != first.digest
    assert prepared_cache.prepare(str(source), heldout_share=0.5).digest != first.digest


def test_data_that_json_would_change_is_not_kept(data: Path, folder: Path, monkeypatch):
    real = prepared_cache.data.prepare

    def odd(*arguments, **settings):
        made = real(*arguments, **settings)
        return dataclasses.replace(made, train=[dataclasses.replace(made.train[0], focus=3.5j), *made.train[1:]])

    monkeypatch.setattr(prepared_cache.data, "prepare", odd)
    assert prepared_cache.prepare(str(data), heldout_share=0.3).train[0].focus == 3.5j
    assert files(folder, "data") == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="this user may write anywhere")
def test_cache_that_cannot_be_written_is_no_hindrance(tokenizer, rows, folder: Path):
    folder.mkdir()
    folder.chmod(0o500)
    assert len(encode(tokenizer, rows).examples) == len(rows)


def test_cache_below_a_file_is_no_hindrance(tokenizer, rows, tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDMIND_CACHE", str(tmp_path / "file"))
    assert len(encode(tokenizer, rows).examples) == len(rows)


def test_oldest_entries_go(tokenizer, rows, folder: Path, monkeypatch):
    monkeypatch.setattr(cache, "_KEPT", 2)
    for number in range(4):
        encode(tokenizer, rows[:1], digest=str(number))
    assert len(files(folder, "tokens")) == 2


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"MEDMIND_CACHE": "/a/b"}, Path("/a/b")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/medmind")),
        ({}, Path.home() / ".cache" / "medmind"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has its own place")
def test_place_is_what_the_environment_says(monkeypatch, variables, wanted):
    for name in ("MEDMIND_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.directory() == wanted


def test_second_run_trains_the_same_adapter_without_encoding(qlora, small, encodings, tmp_path: Path):
    assert qlora(*small("--name", "first")).code == 0
    assert len(encodings) == 2
    assert qlora(*small("--name", "second")).code == 0
    assert len(encodings) == 2
    first, second = (tmp_path / "runs" / name / "adapter/adapter_model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_package_for_data_is_what_the_code_digest_covers():
    assert {path.name for path in Path(data.__file__).parent.glob("*.py")} >= {"prepare.py", "split.py", "clean.py"}
