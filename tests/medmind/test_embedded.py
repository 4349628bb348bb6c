"""What the package carries: whole, described by its digests, and refused where a byte of it differs."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import repository_scripts

from medmind import base, digests, embedded
from medmind.artifacts import ADAPTER, MANIFEST, digest_files, read_run
from medmind.errors import MedmindError

READ = {
    embedded.BASE: ["config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"],
    embedded.TUNED: ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "medmind.json"],
}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """A process that has verified nothing yet, and is left so."""
    digests.verified.cache_clear()
    yield
    digests.verified.cache_clear()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> Path:
    """A copy of the embedded folder that this process takes for the package's; files are links until they are hurt."""
    shutil.copytree(embedded.FOLDER, tmp_path / "embedded", copy_function=os.symlink)
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "embedded")
    return tmp_path / "embedded"


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.unlink()
    file.write_bytes(content)


def refused(name: str, *words: str) -> None:
    with pytest.raises(MedmindError) as caught:
        digests.verified(name)
    line = str(caught.value)
    assert "\n" not in line
    for word in (*words, "install"):
        assert word in line


def test_the_committed_digests_hold_for_every_file_a_model_is_read_from() -> None:
    table = json.loads((embedded.FOLDER / digests.FILE).read_text(encoding="utf-8"))
    assert table == {name: digests.of(embedded.FOLDER / name) for name in READ}
    for name, files in READ.items():
        assert set(files) <= set(table[name])


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in READ.items() for file in files])
@pytest.mark.parametrize("place", [0, -1])
def test_a_flipped_bit_is_named(copy: Path, name: str, file: str, place: int) -> None:
    flip(copy / name / file, place)
    refused(name, str(copy / name / file), "damaged")


@pytest.mark.parametrize(("name", "file"), [(embedded.BASE, "tokenizer.model"), (embedded.TUNED, "medmind.json")])
def test_a_missing_file_is_named(copy: Path, name: str, file: str) -> None:
    (copy / name / file).unlink()
    refused(name, str(copy / name / file), "missing")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"medmind-base": {}}'])
def test_digests_that_say_nothing_are_no_pass(copy: Path, content: str | None) -> None:
    (copy / digests.FILE).unlink()
    if content is not None:
        (copy / digests.FILE).write_text(content, encoding="utf-8")
    refused(embedded.BASE, digests.FILE)


def test_a_damaged_base_is_not_resolved(copy: Path) -> None:
    flip(copy / embedded.BASE / "model.safetensors", -1)
    with pytest.raises(MedmindError, match=r"model\.safetensors is damaged"):
        base.resolve(embedded.BASE, fetch=lambda *_: pytest.fail("no hub for the embedded base"))


def test_a_process_reads_the_files_once(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: read.append(path) or real(path))
    for _ in range(3):
        base.resolve(embedded.BASE, fetch=lambda *_: pytest.fail("no hub for the embedded base"))
    assert len(read) == len(set(read)) > 0


def test_the_run_is_one_on_the_embedded_base_with_the_adapter_it_recorded() -> None:
    folder = embedded.FOLDER / embedded.TUNED
    manifest = read_run(folder)
    files = [path for path in (folder / ADAPTER).rglob("*") if path.is_file()]
    assert manifest["name"] == embedded.TUNED
    assert manifest["base"]["digest"] == base.fingerprint(base.EMBEDDED_PATH)
    assert manifest["adapter"]["digest"] == digest_files(folder / ADAPTER, files)


def test_the_run_carries_neither_rows_nor_paths() -> None:
    folder = embedded.FOLDER / embedded.TUNED
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"README.md", *READ[embedded.TUNED]}
    repository_scripts.load("embedded")._refuse_paths(read_run(folder), MANIFEST)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The embedded run as training left it, with what belongs to a machine."""
    folder = tmp_path / "runs" / "trial"
    shutil.copytree(embedded.FOLDER / embedded.TUNED / ADAPTER, folder / ADAPTER)
    manifest = read_run(embedded.FOLDER / embedded.TUNED)
    del manifest["rows"]
    manifest |= {"name": "trial"}
    manifest["base"] |= {"path": str(base.EMBEDDED_PATH)}
    manifest["data"] |= {"source": "/home/someone/MedQuAD", "where": "/home/someone/MedQuAD"}
    manifest["data"]["counts"] |= {"skipped_files": ["/home/someone/MedQuAD/odd.xml"]}
    manifest["config"] |= {"data": "/home/someone/MedQuAD", "recorded": "/home/someone/runs/a", "out": "/home/someone"}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "heldout.jsonl").write_text('{"messages": []}\n', encoding="utf-8")
    return folder


def test_a_run_is_carried_without_rows_and_paths(run: Path, tmp_path: Path) -> None:
    target = tmp_path / embedded.TUNED
    target.mkdir()
    (target / "README.md").write_text("the card", encoding="utf-8")
    (target / ADAPTER).mkdir()
    (target / ADAPTER / "left.safetensors").write_bytes(b"of the run before")
    repository_scripts.load("embedded").carry(run, target)
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {"README.md", *READ[embedded.TUNED]}
    assert "someone" not in (target / MANIFEST).read_text(encoding="utf-8")
    manifest = read_run(target)
    assert (manifest["name"], manifest["data"]["source"]) == (embedded.TUNED, "MedQuAD")
    assert manifest["config"]["rank"] == read_run(run)["config"]["rank"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("base", {"name": "medmind-base", "kind": "embedded", "digest": "sha256:00"}, "trained on another"),
        ("base", {"name": "medmind-base", "kind": "local", "digest": "sha256:00"}, "trained on another"),
        ("adapter", {"digest": "sha256:00"}, "not those the run recorded"),
        ("system_prompt", "/home/someone/prompt.txt", "path of this machine"),
        ("system_prompt", "C:\\someone\\prompt.txt", "path of this machine"),
    ],
)
def test_a_run_that_cannot_be_carried_leaves_the_old_one(
    run: Path, tmp_path: Path, field: str, value: object, words: str
) -> None:
    manifest = json.loads((run / MANIFEST).read_text(encoding="utf-8")) | {field: value}
    (run / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    target = tmp_path / embedded.TUNED
    (target / ADAPTER).mkdir(parents=True)
    with pytest.raises(MedmindError, match=words):
        repository_scripts.load("embedded").carry(run, target)
    assert [path.name for path in target.iterdir()] == [ADAPTER]


def test_the_commands_ask_for_help_without_reading_a_model(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from medmind_convert.cli import app as convert
    from medmind_runtime.command_line import app as chat
    from medmind_train.cli import app as train

    for name in READ:
        flip(copy / name / READ[name][0], 0)
    for app, command in ((convert, "gguf"), (train, "qlora"), (train, "plan"), (chat, "chat")):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
