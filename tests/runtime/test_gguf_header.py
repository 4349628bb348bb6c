import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from medmind import gguf_header
from medmind.errors import MedmindError
from medmind_runtime.engine.engine import Engine
from medmind_runtime.engine.loading import DEFAULT_CONTEXT


def test_a_whole_file_passes(model: Path) -> None:
    gguf_header.check(model)


def test_every_cut_is_noticed(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(0, 300), *range(300, len(data), 4999), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(MedmindError, match=r"cut off|not a GGUF"):
            Engine.load(path)


@pytest.mark.parametrize("content", [b"", b"GGU", b"<html>not found</html>", b"\x80\x02}q\x00."])
def test_another_file_is_no_gguf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(MedmindError, match="not a GGUF file"):
        gguf_header.check(path)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(MedmindError, match="does not exist"):
        gguf_header.check(tmp_path / "none.gguf")
    with pytest.raises(MedmindError, match="not a file"):
        gguf_header.check(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<IQQ", 3, 2**60, 0),
        struct.pack("<IQQ", 3, 0, 2**63),
        struct.pack("<IQQQ", 3, 0, 1, 2**62),
        struct.pack("<IQQ", 1, 0, 0),
        struct.pack(">IQQ", 3, 1, 1),
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 8, 2**61),
        struct.pack("<IQQQ1sIIQQ", 3, 0, 1, 1, b"a", 9, 8, 1, 8),
        struct.pack("<IQQQ1sIIQQ", 3, 0, 1, 1, b"a", 9, 8, 2, 2**64 - 1),
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 9, 1),
        struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 77),
        struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"a", 2**31),
        struct.pack("<IQQQ17sII", 3, 0, 1, 17, b"general.alignment", 4, 0),
    ],
)
def test_huge_counts_and_unknown_types_are_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(b"GGUF" + header)
    with pytest.raises(MedmindError):
        gguf_header.check(path)


def test_a_damaged_header_raises_nothing_but_medmind_errors(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    path = tmp_path / "damaged.gguf"
    chance = random.Random(5)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[chance.randrange(4, 9000)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            gguf_header.check(path)
        except MedmindError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_what_llama_cpp_refuses_comes_with_its_reason(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "foreign.gguf"
    path.write_bytes(model.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxxxx", 1))
    with pytest.raises(MedmindError, match="unknown model architecture: 'lxxxx'"):
        Engine.load(path)


def test_a_context_length_of_all_32_bits_is_no_negative_one(make_model: Callable[..., Path]) -> None:
    """llama.cpp gives it with a sign."""
    path = make_model(context=2**32 - 1)
    with Engine.load(path, threads=1) as engine:
        assert engine.context == DEFAULT_CONTEXT
    with pytest.raises(MedmindError, match=f"a context of {2**32} tokens is longer than this model's {2**32 - 1}"):
        Engine.load(path, threads=1, context=2**32)
    with pytest.raises(MedmindError, match="its context length is 0"):
        Engine.load(make_model(context=0), threads=1)
