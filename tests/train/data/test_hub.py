"""Data sets by id, against a hub on loopback that speaks what `datasets` asks for.

Where the hub is, and whether it may be asked, is read when a process begins: commands that agree in it share one.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMANDS = """
import json, os, sys, tempfile
import typer
from medmind import console
from medmind_train.data_cli import register
app = typer.Typer(pretty_exceptions_enable=False)
app.callback()(lambda: None)
register(app)
def run(words):
    sys.argv = ["medmind-train", "data", *words]
    files = [tempfile.TemporaryFile() for _ in range(2)]
    before = [os.dup(number) for number in (1, 2)]
    for number, file in zip((1, 2), files):
        os.dup2(file.fileno(), number)
    code = 0
    try:
        console.run(app)
    except SystemExit as end:
        code = end.code or 0
    for number, stream, kept in zip((1, 2), (sys.stdout, sys.stderr), before):
        stream.flush()
        os.dup2(kept, number)
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read().decode())
    return [code, *texts]
print(json.dumps([run(words) for words in json.loads(sys.argv[1])]))
"""


@dataclass
class Hub:
    """What the server gives out, and what was asked of it."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""


@dataclass
class Said:
    """How one command ended, and what it wrote, by whomever in its process."""

    code: int
    out: str
    err: str


@contextmanager
def serving() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

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
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def data(home: Path, *commands: Sequence[str], endpoint: str, **environment: str) -> list[Said]:
    """`medmind-train data` with each of the lists of words, in one process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "MEDMIND_"))}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env={**clean, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "XDG_CONFIG_HOME": str(home), **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [Said(*one) for one in json.loads(done.stdout)]


def refused(said: Said, *parts: str) -> None:
    assert said.code == 1
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    for part in parts:
        assert part in said.err


FOCUSES = ("Hay fever", "Nosebleed", "Sprained ankle", "Motion sickness", "Dry eye", "Bunion", "Hiccups", "Sty")
ONLINE = {
    "first": ["someone/questions", "--json"],
    "medquad": ["medquad", "--json"],
    "unknown": ["someone/questoins"],
    "gated": ["clinic/private"],
    "texts": ["someone/texts"],
}
OFFLINE = {"again": ["someone/questions", "--json"], "new": ["someone/other"]}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """Of every command, first those that ask the hub, then those that may not."""
    home = tmp_path_factory.mktemp("home")
    with serving() as hub:
        # MedQuAD as it is spelt on the hub, where removed answers are null.
        records = [
            {
                "document_source": "Made up",
                "question_focus": focus,
                "question_type": kind,
                "question_id": "0000001-1",
                "question": question.format(focus.lower()),
                "answer": f"{focus} {rest}",
            }
            for focus in (
                "Hay fever",
                "Nosebleed",
                "Sprained ankle",
                "Motion sickness",
                "Dry eye",
                "Bunion",
                "Sty",
                "Flu",
            )
            for kind, question, rest in (
                ("information", "What is {}?", "is a passing nuisance that most people meet once."),
                ("treatment", "What helps with {}?", "mostly needs rest, patience and some water."),
            )
        ]
        records.append({**records[0], "answer": None})
        lavita = {"train.jsonl": "".join(json.dumps(record) + "\n" for record in records).encode()}
        texts = {"train.jsonl": b'{"text": "a"}\n{"text": "b"}\n'}
        hub.files = {
            "someone/questions": lavita,
            "lavita/MedQuAD": lavita,
            "someone/texts": texts,
            "someone/other": lavita,
        }
        hub.refused["clinic/private"] = (403, "GatedRepo")
        found = data(home, *ONLINE.values(), endpoint=hub.endpoint)
        asked = len(hub.requests)
        assert asked
        found += data(home, *OFFLINE.values(), endpoint=hub.endpoint, HF_HUB_OFFLINE="1")
        assert len(hub.requests) == asked
    return dict(zip([*ONLINE, *OFFLINE], found, strict=True))


def test_a_data_set_is_fetched_once_and_read_again_without_the_hub(said: dict[str, Said]) -> None:
    first = said["first"]
    assert (first.code, first.err) == (0, "")
    document = json.loads(first.out)
    assert document["counts"]["read"] == 17
    assert document["counts"]["dropped"] == {"empty answer": 1}
    assert document["counts"]["sources"] == {"Made up": 16}
    assert document["counts"]["question_types"] == {"information": 8, "treatment": 8}
    assert sum(document["counts"]["focuses"].values()) == 8
    assert json.loads(said["again"].out)["digest"] == document["digest"], said["again"].err


def test_medquad_without_a_path_comes_from_the_hub(said: dict[str, Said]) -> None:
    done = said["medquad"]
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert (document["source"], document["where"]) == ("medquad", "lavita/MedQuAD")


def test_offline_is_respected_and_said(said: dict[str, Said]) -> None:
    refused(said["new"], "HF_HUB_OFFLINE is set")


def test_medquad_without_path_and_hub_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    (done,) = data(tmp_path, ["medquad"], endpoint="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    refused(done, "MedQuAD is not on this machine", "git clone", "medmind-train data medquad --path")


def test_an_unreachable_hub_is_one_line_within_seconds(tmp_path: Path) -> None:
    start = time.monotonic()
    (done,) = data(tmp_path, ["someone/questions"], endpoint="http://127.0.0.1:9")
    refused(done, "the hub cannot be reached")
    assert time.monotonic() - start < 15  # left to itself, `datasets` retries for 23 s


def test_an_unknown_and_a_gated_data_set_are_one_line_each(said: dict[str, Said]) -> None:
    refused(said["unknown"], "neither a path here nor a data set on the hub")
    refused(said["gated"], "asks for consent", "huggingface.co/datasets/clinic/private", "hf auth login")


def test_a_data_set_without_the_columns_is_one_line(said: dict[str, Said]) -> None:
    refused(said["texts"], "someone/texts[train], row 1", "columns text", "wanted")
