"""Fetching from a hub on loopback: what is asked of it, what reaches the disk, and what a person reads."""

import importlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from medmind import console, hub
from medmind.console import human_bytes

huggingface_hub = pytest.importorskip("huggingface_hub")
importlib.import_module("huggingface_hub.file_download")

Command = Callable[..., subprocess.CompletedProcess[str]]
REPO = "clinic/tiny-mistral"
OTHER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FETCH = """
import sys, typer
from medmind import console, hub
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
def fetch(repo: str):
    path, commit = hub.fetch_model(repo, None)
    console.emit_json({"path": str(path), "commit": commit})
console.run(app)
"""
"""A user's command, for what only a process of its own can show."""

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def _fetch(repo: str, revision: str = "main", yes: bool = False, say: str = "") -> None:
    asked: list[str] = []
    confirm = (lambda question: asked.append(question) or say == "y") if say else None
    path, commit = hub.fetch_model(repo, revision, assume_yes=yes, confirm=confirm)
    files = sorted(file.name for file in path.iterdir())
    console.emit_json({"path": str(path), "commit": commit, "asked": asked, "files": files})


class Fetch:
    """`fetch_model` as a command, run in this process (a fresh import of huggingface_hub costs half a second).

    The variables that huggingface_hub reads when it is imported are set as the constants that it keeps of them.
    """

    def __init__(
        self, server: Any, cache: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.hub, self.cache, self.patch, self.capture = server, cache, patch, capture

    def run(self, *arguments: str, HF_ENDPOINT: str = "", HF_HUB_OFFLINE: str = "", HF_TOKEN: str = "") -> Any:
        endpoint = HF_ENDPOINT or self.hub.endpoint
        with self.patch.context() as patch:
            patch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
            template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
            patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", HF_HUB_OFFLINE == "1")
            patch.setenv("HF_TOKEN", HF_TOKEN)
            patch.setattr("sys.argv", ["fetch", *arguments])
            patch.setattr(console, "quiet_libraries", lambda: None)
            patch.setattr("signal.signal", lambda *_: None)
            huggingface_hub.close_session()
            with pytest.raises(SystemExit) as ended:
                console.run(app)
        return ended.value.code or 0, *self.capture.readouterr()

    def __call__(self, *arguments: str, **env: str) -> dict[str, Any]:
        code, out, err = self.run(REPO, *arguments, **env)
        assert code == 0, err
        return json.loads(out) | {"stderr": err}

    def error(self, *arguments: str, repo: str = REPO, **env: str) -> str:
        """The one line of a fetch that fails with exit code 1."""
        code, out, err = self.run(*arguments, "--", repo, **env)
        lines = [line for line in err.splitlines() if not line.startswith("downloading ")]
        assert (code, out, len(lines)) == (1, "", 1), err
        assert lines[0].startswith("error: ")
        return lines[0]

    def weights(self) -> list[Path]:
        return sorted(self.cache.rglob("snapshots/*/*.safetensors"))


@pytest.fixture
def fetch(
    fake_hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Fetch]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path / "hf" / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # a small file is many pieces
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's attempts
    yield Fetch(fake_hub, cache, monkeypatch, capsys)
    huggingface_hub.close_session()


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download is a large one."""
    monkeypatch.setattr(hub, "ASK_ABOVE", 10)


def test_only_the_files_that_are_needed_are_fetched(fetch: Fetch) -> None:
    wanted = set(fetch.hub.files)
    fetch.hub.files |= {
        "consolidated.safetensors": b"x" * 1000,
        "pytorch_model.bin": b"pickle",
        "extra.safetensors": b"y",
        "README.md": b"#",
        "original/params.json": b"{}",
    }
    result = fetch()
    assert fetch.hub.fetched() == wanted == set(result["files"])
    for name in wanted:
        assert (Path(result["path"]) / name).read_bytes() == fetch.hub.files[name]
    assert result["commit"] == fetch.hub.commit
    assert not list(fetch.cache.rglob("*.incomplete"))


def test_a_model_in_one_file_is_fetched(fetch: Fetch, make_safetensors: Callable[..., bytes]) -> None:
    for name in (*SHARDS, "model.safetensors.index.json"):
        del fetch.hub.files[name]
    fetch.hub.files["model.safetensors"] = make_safetensors(100)
    assert "model.safetensors" in fetch()["files"]


def test_a_second_fetch_downloads_nothing_and_says_nothing(fetch: Fetch) -> None:
    first = fetch()
    fetch.hub.requests.clear()
    second = fetch()
    assert second["path"] == first["path"]
    assert fetch.hub.requests == [("GET", "api")]
    assert second["stderr"] == ""


def test_a_cached_commit_asks_the_hub_nothing(fetch: Fetch) -> None:
    fetch()
    fetch.hub.requests.clear()
    assert fetch("--revision", fetch.hub.commit)["commit"] == fetch.hub.commit
    assert fetch.hub.requests == []


def test_a_new_commit_fetches_only_what_changed(fetch: Fetch) -> None:
    fetch()
    fetch.hub.commit = OTHER_COMMIT
    fetch.hub.files["generation_config.json"] = b'{"top_k": 1}'
    fetch.hub.requests.clear()
    result = fetch()
    assert result["commit"] == OTHER_COMMIT
    assert fetch.hub.fetched() == {"generation_config.json"}
    assert (Path(result["path"]) / "generation_config.json").read_bytes() == b'{"top_k": 1}'


@pytest.mark.parametrize("env", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_whole_cache_serves_without_network_and_without_a_word(fetch: Fetch, env: dict[str, str]) -> None:
    first = fetch()
    fetch.hub.requests.clear()
    second = fetch(**env)
    assert (second["path"], second["stderr"]) == (first["path"], "")
    assert fetch.hub.requests == []


def test_a_process_of_its_own_reads_the_users_variables(command: Command, fake_hub: Any) -> None:
    first = command(FETCH, REPO, HF_ENDPOINT=fake_hub.endpoint)
    assert first.returncode == 0, first.stderr
    fake_hub.requests.clear()
    second = command(FETCH, REPO, HF_ENDPOINT=fake_hub.endpoint, HF_HUB_OFFLINE="1")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert fake_hub.requests == []
    absent = command(FETCH, "clinic/absent", HF_ENDPOINT=fake_hub.endpoint)
    assert (absent.returncode, absent.stdout, len(absent.stderr.splitlines())) == (1, "", 1)


def test_offline_with_nothing_cached_is_one_line(fetch: Fetch) -> None:
    assert "HF_HUB_OFFLINE" in fetch.error(HF_HUB_OFFLINE="1")
    assert fetch.hub.requests == []


def test_offline_with_half_a_cache_is_one_line(fetch: Fetch) -> None:
    fetch()
    fetch.weights()[0].unlink()
    assert "not whole" in fetch.error(HF_HUB_OFFLINE="1")


def test_an_interrupted_first_fetch_does_not_pass_for_a_cached_model(fetch: Fetch) -> None:
    fetch.hub.cut_after[SHARDS[1]] = [1000] * 1 + [0] * 100
    fetch.error()
    assert "not whole" in fetch.error(HF_HUB_OFFLINE="1")


def test_no_network_is_one_line_that_names_the_endpoint(fetch: Fetch) -> None:
    assert "http://127.0.0.1:9" in fetch.error(HF_ENDPOINT="http://127.0.0.1:9")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("place", ["config.json", "api"])
def test_a_gated_model_gives_the_licence_page_and_the_login_command(fetch: Fetch, status: int, place: str) -> None:
    fetch.hub.refuse[place] = (status, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
    line = fetch.error()
    assert f"{fetch.hub.endpoint}/{REPO}" in line
    assert "hf auth login" in line
    assert not fetch.weights()


@pytest.mark.usefixtures("small_limit")
def test_weights_gated_alone_are_refused_before_the_question(fetch: Fetch) -> None:
    fetch.hub.refuse[SHARDS[0]] = (403, {"X-Error-Code": "GatedRepo"})
    assert "licence" in fetch.error()


def test_an_invalid_token_is_told_as_such_and_not_shown(fetch: Fetch) -> None:
    fetch.hub.refuse["api"] = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    line = fetch.error(HF_TOKEN="hf_notarealtoken")
    assert "hf auth login" in line
    assert "hf_notarealtoken" not in line


def test_the_token_reaches_the_hub_and_no_other_host(fetch: Fetch) -> None:
    fetch(HF_TOKEN="hf_notarealtoken")
    assert {bearer for path, bearer in fetch.hub.bearers if "/resolve/" in path} == {"Bearer hf_notarealtoken"}
    assert {bearer for path, bearer in fetch.hub.bearers if "/cdn/" in path} == {""}


def test_an_unknown_model_is_one_line(fetch: Fetch) -> None:
    assert "knows no model 'clinic/absent'" in fetch.error(repo="clinic/absent")


def test_an_unknown_revision_is_one_line(fetch: Fetch) -> None:
    assert "no revision 'v9'" in fetch.error("--revision", "v9")


@pytest.mark.parametrize("repo", ["../../etc", "a/b/c", "-x/y", "a b/c", "owner/.."])
def test_a_name_that_is_no_repository_is_one_line(fetch: Fetch, repo: str) -> None:
    assert "is not a model of the hub" in fetch.error(repo=repo)
    assert fetch.hub.requests == []


def test_a_revision_that_leaves_the_cache_is_refused(fetch: Fetch) -> None:
    assert "not a model" in fetch.error("--revision", "../../x", HF_HUB_OFFLINE="1")


def test_a_server_error_is_one_line(fetch: Fetch) -> None:
    fetch.hub.refuse["api"] = (503, {})
    assert "503" in fetch.error()


def test_a_page_that_is_no_hub_is_one_line(fetch: Fetch) -> None:
    fetch.hub.refuse["api"] = (200, {"Content-Type": "text/html"})
    assert "does not answer as a hub" in fetch.error()


def test_a_download_above_the_limit_needs_yes_where_nobody_can_be_asked(fetch: Fetch) -> None:
    fetch.hub.claimed[SHARDS[0]] = 1_500_000_000
    line = fetch.error()
    assert "--yes" in line
    assert "1.40 GiB" in line
    assert "free" in line
    assert not fetch.hub.fetched() & set(SHARDS)


@pytest.mark.usefixtures("small_limit")
def test_yes_downloads_without_a_question(fetch: Fetch) -> None:
    assert fetch("--yes")["asked"] == []


@pytest.mark.usefixtures("small_limit")
def test_a_person_who_agrees_is_asked_once(fetch: Fetch) -> None:
    assert len(fetch("--say", "y")["asked"]) == 1


@pytest.mark.usefixtures("small_limit")
def test_a_person_who_declines_ends_it_before_the_weights(fetch: Fetch) -> None:
    assert "was not downloaded" in fetch.error("--say", "n")
    assert not fetch.hub.fetched() & set(SHARDS)


@pytest.mark.usefixtures("small_limit")
def test_the_question_counts_only_what_the_cache_lacks(fetch: Fetch) -> None:
    fetch("--yes")
    fetch.weights()[1].unlink()
    size = len(fetch.hub.files[SHARDS[1]])
    next(path for path in fetch.cache.rglob("blobs/*") if path.stat().st_size == size).unlink()
    (question,) = fetch("--say", "y")["asked"]
    assert human_bytes(size) in question


def test_a_disk_too_small_is_told_before_the_download(fetch: Fetch) -> None:
    fetch.hub.claimed[SHARDS[0]] = 10**18
    line = fetch.error("--yes")
    assert "free" in line
    assert "HF_HOME" in line
    assert not fetch.hub.fetched() & set(SHARDS)


def test_a_broken_connection_is_taken_up_where_it_stopped(fetch: Fetch) -> None:
    fetch.hub.cut_after[SHARDS[0]] = [100_000]
    result = fetch()
    assert (Path(result["path"]) / SHARDS[0]).read_bytes() == fetch.hub.files[SHARDS[0]]
    assert fetch.hub.ranges == ["bytes=65536-"]  # whole pieces are kept
    whole = sum(len(fetch.hub.files[name]) for name in (*SHARDS, "tokenizer.model"))
    assert fetch.hub.sent == whole + 100_000 - 65536


def test_the_next_command_goes_on_where_a_killed_one_stopped(fetch: Fetch, command: Command) -> None:
    first = command(KILLED, REPO, HF_ENDPOINT=fetch.hub.endpoint)
    assert first.returncode == 9, first.stderr
    (partial,) = fetch.cache.rglob("*.incomplete")
    had = partial.stat().st_size
    assert 0 < had < len(fetch.hub.files[SHARDS[0]])
    result = fetch()
    assert (Path(result["path"]) / SHARDS[0]).read_bytes() == fetch.hub.files[SHARDS[0]]
    assert fetch.hub.ranges == [f"bytes={had}-"]
    assert not partial.exists()


KILLED = """
import os, sys
import huggingface_hub.constants as constants
constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
from medmind import hub_cache
from medmind.hub import fetch_model
original = hub_cache.Snapshot._transfer
def transfer(self, file, partial, advance):
    total = 0
    def dying(count=0, status=""):
        nonlocal total
        total += count
        if total > 200_000:
            os._exit(9)
    original(self, file, partial, dying)
hub_cache.Snapshot._transfer = transfer
fetch_model(sys.argv[1], None)
"""


def test_damaged_weights_are_thrown_away_and_fetched_anew(fetch: Fetch) -> None:
    fetch.hub.damaged.add(SHARDS[1])
    assert f"{SHARDS[1]} of {REPO} came corrupted" in fetch.error()
    assert [path.name for path in fetch.weights()] == [SHARDS[0]]
    assert not list(fetch.cache.rglob("*.incomplete"))
    fetch.hub.damaged.clear()
    fetch.hub.requests.clear()
    fetch()
    assert fetch.hub.fetched() == {SHARDS[1]}


def test_damaged_small_files_are_thrown_away(fetch: Fetch) -> None:
    fetch.hub.damaged.add("tokenizer.model")
    assert "tokenizer.model" in fetch.error()
    assert not list(fetch.cache.rglob("snapshots/*/tokenizer.model"))


def test_a_cached_file_that_was_cut_off_is_fetched_again(fetch: Fetch) -> None:
    fetch()
    shard = fetch.weights()[0]
    shard.resolve().write_bytes(b"short")
    assert (Path(fetch()["path"]) / SHARDS[0]).read_bytes() == fetch.hub.files[SHARDS[0]]


def damage(shard: Path) -> None:
    """Turn one byte of a cached file over; it keeps its length."""
    with shard.resolve().open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 0xFF]))


def test_a_cached_file_that_was_damaged_is_fetched_again(fetch: Fetch) -> None:
    fetch()
    damage(fetch.weights()[0])
    fetch.hub.requests.clear()
    result = fetch()
    assert "is damaged in the cache" in result["stderr"] and SHARDS[0] in result["stderr"]
    assert (Path(result["path"]) / SHARDS[0]).read_bytes() == fetch.hub.files[SHARDS[0]]
    assert fetch.hub.fetched() == {SHARDS[0]}
    damage(fetch.weights()[1])
    assert "is damaged" in fetch("--revision", fetch.hub.commit)["stderr"]


@pytest.mark.parametrize("env", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_cached_file_that_was_damaged_is_told_without_network(fetch: Fetch, env: dict[str, str]) -> None:
    fetch()
    damage(fetch.weights()[1])
    assert f"{SHARDS[1]} of {REPO} is damaged" in fetch.error(**env)
    assert len(fetch.weights()) == 2


def test_a_cache_that_another_tool_filled_is_checked_once(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch()
    for note in fetch.cache.rglob(".medmind-checked/*"):
        note.unlink()
    checked: list[str] = []
    real = hub.ModelCache.check
    monkeypatch.setattr(
        hub.ModelCache, "check", lambda self, path, advance: checked.append(path.name) or real(self, path, advance)
    )
    fetch(HF_HUB_OFFLINE="1")
    fetch(HF_HUB_OFFLINE="1")
    assert checked == list(SHARDS)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "..\\evil.safetensors", ".."])
def test_an_index_that_leaves_its_folder_is_refused(fetch: Fetch, name: str) -> None:
    fetch.hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": name}}).encode()
    assert "outside its folder" in fetch.error()
    assert not fetch.hub.fetched() & set(SHARDS)


@pytest.mark.parametrize("name", ["absent.safetensors", "pytorch_model.bin"])
def test_an_index_may_name_only_safetensors_of_the_repository(fetch: Fetch, name: str) -> None:
    fetch.hub.files["pytorch_model.bin"] = b"pickle"
    fetch.hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": name}}).encode()
    assert "no safetensors file" in fetch.error()
    assert "pytorch_model.bin" not in fetch.hub.fetched()


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (("config.json",), "no config.json"),
        (("model.safetensors.index.json",), "no safetensors"),
        (("tokenizer.json", "tokenizer.model"), "no tokenizer"),
    ],
)
def test_a_repository_that_cannot_serve_is_refused_before_any_download(
    fetch: Fetch, gone: tuple[str, ...], said: str
) -> None:
    fetch.hub.files["pytorch_model.bin"] = b"pickle"
    for name in gone:
        del fetch.hub.files[name]
    assert said in fetch.error()
    assert not fetch.hub.fetched()


def test_an_unsupported_architecture_is_refused_before_the_weights(fetch: Fetch) -> None:
    fetch.hub.files["config.json"] = b'{"architectures": ["GPT2LMHeadModel"]}'
    assert "GPT2LMHeadModel" in fetch.error()
    assert fetch.hub.fetched() == {"config.json"}
