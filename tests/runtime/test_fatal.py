"""Files over which llama.cpp would end the process are refused before it sees them."""

import math
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medmind import gguf_header
from medmind.errors import MedmindError
from medmind_runtime.engine.engine import Engine
from medmind_runtime.engine.fatal import demand_usable


def changed(model: Path, to: Path, *pairs: tuple[bytes, bytes]) -> Path:
    data = model.read_bytes()
    for old, new in pairs:
        assert old in data
        assert len(old) == len(new)
        data = data.replace(old, new)
    to.write_bytes(data)
    return to


def test_a_usual_file_passes(model: Path) -> None:
    demand_usable(gguf_header.read(model))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"<0xC3>", b"<1xC3>", "no token for 1 of 256 bytes, the first of them 0xC3"),
        (b"<0xC3>", b"<0xC4>", "several of its tokens are the same"),
        (struct.pack("<If", 6, 1e-5), struct.pack("<If", 6, math.nan), "the constant of its norms is nan"),
        (struct.pack("<If", 6, 1e-5), struct.pack("<If", 6, -1.0), "the constant of its norms is -1"),
    ],
)
def test_what_would_end_the_process_is_refused(model: Path, tmp_path: Path, old: bytes, new: bytes, said: str) -> None:
    damaged = changed(model, tmp_path / "damaged.gguf", (old, new))
    with pytest.raises(MedmindError, match=re.escape(said)):
        Engine.load(damaged, threads=1)


def metadata_alone(path: Path, *pairs: tuple[bytes, int, bytes]) -> gguf_header.Header:
    """A file without tensors: names, types and values as the format has them."""
    values = b"".join(struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + at for name, kind, at in pairs)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + values)
    return gguf_header.read(path)


@pytest.mark.parametrize(
    ("kind", "value"), [(0, b"\1"), (8, struct.pack("<Q", 1) + b"a"), (9, struct.pack("<IQI", 4, 1, 7))]
)
def test_tokens_that_are_no_texts_are_refused(tmp_path: Path, kind: int, value: bytes) -> None:
    header = metadata_alone(tmp_path / "damaged.gguf", (b"tokenizer.ggml.tokens", kind, value))
    with pytest.raises(MedmindError, match=r"its tokenizer\.ggml\.tokens is no list of texts"):
        demand_usable(header)


def test_a_constant_of_another_kind_is_left_to_llama_cpp_to_refuse(tmp_path: Path) -> None:
    name = b"llama.attention.layer_norm_rms_epsilon"
    architecture = b"general.architecture", 8, struct.pack("<Q", 5) + b"llama"
    demand_usable(metadata_alone(tmp_path / "damaged.gguf", architecture, (name, 0, b"\1")))


def test_chat_says_so_in_one_line(
    model: Path, tmp_path: Path, run_chat: Callable[..., "subprocess.CompletedProcess[bytes]"]
) -> None:
    damaged = changed(model, tmp_path / "damaged.gguf", (b"<0xC3>", b"<1xC3>"))
    done = run_chat(str(damaged), "-p", "hé")
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
