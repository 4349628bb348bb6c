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


def test_chat_says_so_in_one_line(
    model: Path, tmp_path: Path, run_chat: Callable[..., "subprocess.CompletedProcess[bytes]"]
) -> None:
    damaged = changed(model, tmp_path / "damaged.gguf", (b"<0xC3>", b"<1xC3>"))
    done = run_chat(str(damaged), "-p", "hé")
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
