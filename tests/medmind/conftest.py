"""A hub on loopback, a small model directory, and a way to run a piece of Python as a user's command."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
REPO = "clinic/tiny-mistral"


def safetensors(values: int, fill: bytes = b"\x01", name: str = "a") -> bytes:
    """A safetensors file with one uint8 tensor of `values` elements."""
    header = json.dumps({name: {"dtype": "U8", "shape": [values], "data_offsets": [0, values]}}).encode()
    return struct.pack("<Q", len(header)) + header + fill * values


def model_files() -> dict[str, bytes]:
    """A model of two shards, as bytes by file name."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    return {
        "config.json": json.dumps({"architectures": ["MistralForCausalLM"]}).encode(),
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer.model": b"sentencepiece bytes",
        "tokenizer_config.json": b'{"model_max_length": 64}',
        "special_tokens_map.json": b'{"bos_token": "<s>"}',
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": safetensors(300_000),
        "model-00002-of-00002.safetensors": safetensors(200_000, b"\x02", "b"),
    }


@dataclass
class FakeHub:
    """What the server gives, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=model_files)
    commit: str = COMMIT
    claimed: dict[str, int] = field(default_factory=dict)
    refuse: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    bearers: list[tuple[str, str]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    sent: int = 0
    endpoint: str = ""
    cdn: str = ""

    def is_large(self, name: str) -> bool:
        return name.endswith((".safetensors", ".bin", ".model"))

    def digest(self, name: str) -> str:
        content = self.files[name]
        if self.is_large(name):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def fetched(self) -> set[str]:
        """Files whose content was asked for."""
        return {path for method, path in self.requests if method == "GET" and path in self.files}

    def listing(self) -> dict[str, object]:
        siblings = []
        for name, content in self.files.items():
            size = self.claimed.get(name, len(content))
            entry: dict[str, object] = {"rfilename": name, "size": size, "blobId": self.digest(name)}
            if self.is_large(name):
                entry["lfs"] = {"sha256": self.digest(name), "size": size, "pointerSize": 134}
            siblings.append(entry)
        return {"id": REPO, "modelId": REPO, "sha": self.commit, "siblings": siblings, "tags": [], "private": False}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # a head and a body are two packets, and 40 ms apart with it

        def log_message(self, *_: object) -> None: ...

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.bearers.append((path, self.headers.get("Authorization", "")))
            if path == "/api/models":
                self.answer(200, {"Content-Type": "application/json"}, b"[]")
            elif path == "/api/whoami-v2":
                known = self.headers.get("Authorization") == "Bearer hf_good"
                self.answer(200 if known else 401, {}, b'{"name": "someone"}' if known else b"{}")
            elif path.startswith("/api/models/"):
                self.api(path.removeprefix("/api/models/"))
            elif found := re.fullmatch(rf"/{REPO}/resolve/(\w+)/(.+)", path):
                self.resolve(found[2])
            elif path.startswith("/cdn/"):
                self.blob(path.removeprefix("/cdn/"))
            else:
                self.answer(404, {})

        def api(self, what: str) -> None:
            hub.requests.append((self.command, "api"))
            repo, _, revision = what.partition("/revision/")
            if "api" in hub.refuse:
                status, headers = hub.refuse["api"]
                self.answer(status, headers)
            elif repo != REPO:
                self.answer(401, {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("", "main", hub.commit):
                self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                self.answer(200, {"Content-Type": "application/json"}, json.dumps(hub.listing()).encode())

        def resolve(self, name: str) -> None:
            if name in hub.refuse:
                status, headers = hub.refuse[name]
                self.answer(status, headers)
                return
            headers = {"X-Repo-Commit": hub.commit, "ETag": f'"{hub.digest(name)}"'}
            if hub.is_large(name):
                headers |= {"X-Linked-Etag": f'"{hub.digest(name)}"', "X-Linked-Size": str(len(hub.files[name]))}
                self.answer(302, headers | {"Location": f"{hub.cdn}/cdn/{name}"})
                return
            hub.requests.append((self.command, name))
            self.answer(200, headers, hub.files[name])

        def blob(self, name: str) -> None:
            hub.requests.append((self.command, name))
            body = hub.files[name]
            if name in hub.damaged:
                body = body[:-1] + b"\xff"
            start, headers = 0, {}
            if asked := self.headers.get("Range"):
                hub.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            cuts = hub.cut_after.get(name)
            if not cuts:
                hub.sent += len(body) - start
                self.answer(206 if asked else 200, headers, body[start:])
                return
            part = body[start : start + cuts.pop(0)]
            hub.sent += len(part)
            self.send_response(206 if asked else 200)
            for key, value in {"Content-Length": str(len(body) - start), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(part)
            self.close_connection = True

    return Handler


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    hub.cdn = f"http://localhost:{server.server_address[1]}"  # another host than the hub's, as in life
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def clean_env(tmp_path: Path) -> dict[str, str]:
    """The environment of a user without any hub setting, whose caches lie under `tmp_path`."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_", "XDG_"))
        and key.lower() not in ("http_proxy", "https_proxy", "all_proxy")
    }
    return kept | {"HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1,localhost", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def command(clean_env: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a process of its own, with `env` added to a clean environment."""

    def run(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=clean_env | env,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A base model directory that `base.check` accepts."""
    path = tmp_path / "model"
    path.mkdir()
    for name, content in model_files().items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def make_safetensors() -> Callable[..., bytes]:
    return safetensors
