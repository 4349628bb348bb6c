"""Data sets by id, against a hub on loopback that speaks what `datasets` asks for; each in a process of its own."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREPARE = """
import typer
from medmind import console
from medmind_train.data_cli import register
app = typer.Typer(pretty_exceptions_enable=False)
app.callback()(lambda: None)
register(app)
console.run(app)
"""


@dataclass
class Hub:
    """What the server gives out, and what was asked of it."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            state.requests.append(f"{self.command} {path}")
            found = re.match(r"/(?:api/)?datasets/(?P<repo>[\w.-]+/[\w.-]+)(?P<rest>/.*)?$", path)
            repo = found["repo"] if found else ""
            if repo in state.refused:
                status, code = state.refused[repo]
                self.answer(status, b"{}", X_Error_Code=code)
            elif found is None or repo not in state.files:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            elif path.startswith("/api/"):
                self.api(state.files[repo], repo, found["rest"] or "")
            else:
                name = (found["rest"] or "").split("/", 3)[3]
                if name in state.files[repo]:
                    self.answer(200, state.files[repo][name], ETag=f'"{len(name):040}"')
                else:
                    self.answer(404, X_Error_Code="EntryNotFound")

        def api(self, files: dict[str, bytes], repo: str, rest: str) -> None:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{len(name):040}"}
                for name, content in files.items()
            ]
            if rest.startswith("/paths-info"):
                wanted = self.body.decode()
                self.json([entry for entry in entries if str(entry["path"]) in wanted])
            elif rest.startswith("/tree"):
                self.json(entries if rest.count("/") == 2 else [])
            else:
                siblings = [{"rfilename": name} for name in files]
                self.json({"id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def data(home: Path, *words: str, endpoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "MEDMIND_"))}
    return subprocess.run(
        [sys.executable, "-c", PREPARE, "data", *words],
        env={**clean, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "XDG_CONFIG_HOME": str(home), **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.fixture
def lavita(make: Any) -> dict[str, bytes]:
    """MedQuAD as it is spelt on the hub, where removed answers are null."""
    records = [
        {"document_source": "Made up", "question_focus": p["focus"], "question_type": p["question_type"]}
        | {"question_id": "0000001-1", "question": p["question"], "answer": p["answer"]}
        for p in make.pairs()
    ]
    records.append({**records[0], "answer": None})
    return {"train.jsonl": "".join(json.dumps(record) + "\n" for record in records).encode()}


def test_a_data_set_is_fetched_once_and_read_again_without_the_hub(
    hub: Hub, tmp_path: Path, lavita: dict[str, bytes]
) -> None:
    hub.files["someone/questions"] = lavita
    first = data(tmp_path, "someone/questions", "--json", endpoint=hub.endpoint)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    document = json.loads(first.stdout)
    assert document["counts"]["read"] == 17
    assert document["counts"]["dropped"] == {"empty answer": 1}
    assert document["counts"]["sources"] == {"Made up": 16}
    assert document["counts"]["question_types"] == {"information": 8, "treatment": 8}
    assert sum(document["counts"]["focuses"].values()) == 8
    asked = len(hub.requests)
    again = data(tmp_path, "someone/questions", "--json", endpoint=hub.endpoint, HF_HUB_OFFLINE="1")
    assert json.loads(again.stdout)["digest"] == document["digest"], again.stderr
    assert len(hub.requests) == asked


def test_medquad_without_a_path_comes_from_the_hub(hub: Hub, tmp_path: Path, lavita: dict[str, bytes]) -> None:
    hub.files["lavita/MedQuAD"] = lavita
    done = data(tmp_path, "medquad", "--json", endpoint=hub.endpoint)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["source"], document["where"]) == ("medquad", "lavita/MedQuAD")


def test_medquad_without_path_and_hub_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    done = data(tmp_path, "medquad", endpoint="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    refused(done, "MedQuAD is not on this machine", "git clone", "medmind-train data medquad --path")


def test_offline_is_respected_and_said(hub: Hub, tmp_path: Path, lavita: dict[str, bytes]) -> None:
    hub.files["someone/questions"] = lavita
    refused(data(tmp_path, "someone/questions", endpoint=hub.endpoint, HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE is set")
    assert hub.requests == []


def test_an_unreachable_hub_is_one_line_within_seconds(tmp_path: Path) -> None:
    start = time.monotonic()
    refused(data(tmp_path, "someone/questions", endpoint="http://127.0.0.1:9"), "the hub cannot be reached")
    assert time.monotonic() - start < 15  # left to itself, `datasets` retries for 23 s


def test_an_unknown_and_a_gated_data_set_are_one_line_each(hub: Hub, tmp_path: Path) -> None:
    refused(data(tmp_path, "someone/questoins", endpoint=hub.endpoint), "neither a path here nor a data set on the hub")
    hub.refused["clinic/private"] = (403, "GatedRepo")
    refused(
        data(tmp_path, "clinic/private", endpoint=hub.endpoint),
        "asks for consent",
        "huggingface.co/datasets/clinic/private",
        "hf auth login",
    )


def test_a_data_set_without_the_columns_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.files["someone/texts"] = {"train.jsonl": b'{"text": "a"}\n{"text": "b"}\n'}
    refused(
        data(tmp_path, "someone/texts", endpoint=hub.endpoint), "someone/texts[train], row 1", "columns text", "wanted"
    )
