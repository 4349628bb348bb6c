"""The server's place and its token file, and the whole of it in a process."""

import http.client
import json
import re
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_runtime import private_file
from medmind_runtime.serve.server import Server

from .serving import HELLO, PATIENCE, TOKEN


def test_only_loopback_and_a_free_port() -> None:
    for host in ("0.0.0.0", "192.168.0.1", "example.org", "::"):
        with pytest.raises(MedmindError, match="is no loopback address"):
            Server(host, 0, TOKEN)
    taken = Server("127.0.0.1", 0, TOKEN)
    with taken, pytest.raises(MedmindError, match="cannot be served on"):
        Server("127.0.0.1", taken.server_port, TOKEN)


def test_the_token_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "token"
    token = private_file.token(file)
    assert len(token) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert private_file.token(file) == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["two words and more", "short"])
def test_a_file_without_a_token_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    file = tmp_path / "notes"
    file.write_text(content, encoding="ascii")
    file.chmod(0o644)
    with pytest.raises(MedmindError, match="holds no token"):
        private_file.token(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.read_text(encoding="ascii") == content
    with pytest.raises(MedmindError, match="is no regular file"):
        private_file.token(tmp_path)


@pytest.mark.parametrize(("end", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_real_server_answers_behind_the_filter(
    start_chat: Callable[..., Any], model: Path, tmp_path: Path, end: signal.Signals, code: int
) -> None:
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's & starts it
    try:
        process = start_chat("serve", model, "--port", 0, "--threads", 1, "--token-file", "token", "--max-tokens", 5)
    finally:
        signal.signal(signal.SIGINT, heard)
    for line in process.stderr:
        if b"Serving tiny at http://127.0.0.1:" in line:
            port = int(line.split(b"127.0.0.1:")[1].split(b"/")[0])
            break
    else:
        raise AssertionError("it did not serve")
    if sys.platform == "linux":
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        assert re.search("Max core file size +0 +0 ", limits)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    key = (tmp_path / "token").read_text(encoding="ascii").strip()
    body = json.dumps({"messages": HELLO})
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
    answer = json.loads(connection.getresponse().read())
    assert answer["usage"]["completion_tokens"] == 5
    process.send_signal(end)
    assert process.wait(PATIENCE) == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token"]
