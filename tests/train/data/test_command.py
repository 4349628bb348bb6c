"""`medmind-train data`: tables and JSON, files written whole or not at all, one line for whatever is wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from medmind_train import data_cli
from medmind_train.data import config_file

Command = Callable[..., Any]


def refused(result: Any, *parts: str) -> None:
    assert result.code == 1
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("error: ")
    for part in parts:
        assert part in result.err


def test_the_table_shows_what_was_read_dropped_and_kept(tmp_path: Path, make: Any, medmind_data: Command) -> None:
    path = make.jsonl(tmp_path / "a.jsonl", [*make.pairs(), {"question": "Why?", "answer": ""}])
    result = medmind_data(path, "--share", "0.3")
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines() if "%" in line]
    assert lines[0] == ["read", "17", "100.0%"]
    assert lines[1] == ["dropped:", "empty", "answer", "1", "5.9%"]
    assert sum(int(line[-3]) for line in lines[2:]) == 16
    assert sum(int(line[-1]) for line in lines[2:]) == 8
    assert "Made up 16" in result.out
    assert "answers" in result.out


def test_json_is_the_only_thing_on_stdout_and_agrees_with_the_files(
    tmp_path: Path, make: Any, medmind_data: Command
) -> None:
    path = make.jsonl(tmp_path / "a.jsonl", make.pairs())
    result = medmind_data(path, "--json", "--out", tmp_path / "out", "--share", "0.3", "--limit", "12")
    document = json.loads(result.out)
    files = {Path(file).name: Path(file).read_text(encoding="utf-8").splitlines() for file in document["files"]}
    assert set(files) == {"train.jsonl", "validation.jsonl", "heldout.jsonl"}
    assert len(files["train.jsonl"]) == document["counts"]["train"]
    assert len(files["validation.jsonl"]) == document["counts"]["validation"]
    assert len(files["heldout.jsonl"]) == document["counts"]["heldout"]
    assert document["counts"]["dropped"] == {"beyond --limit": 4}
    assert document["counts"]["read"] == 16
    row = json.loads(files["train.jsonl"][0])
    assert set(row) == {"id", "messages", "focus", "question_type", "source"}
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    focuses = [{json.loads(line)["focus"] for line in lines} for lines in files.values()]
    assert not focuses[0] & focuses[2]


def test_existing_files_are_kept_unless_forced(tmp_path: Path, make: Any, medmind_data: Command) -> None:
    path, out = make.jsonl(tmp_path / "a.jsonl", make.pairs()), tmp_path / "out"
    out.mkdir()
    (out / "heldout.jsonl").write_text("precious", encoding="utf-8")
    refused(medmind_data(path, "--out", out), "heldout.jsonl exists already", "--force")
    assert [file.name for file in out.iterdir()] == ["heldout.jsonl"]
    assert (out / "heldout.jsonl").read_text(encoding="utf-8") == "precious"
    assert medmind_data(path, "--out", out, "--force").code == 0
    assert sorted(file.name for file in out.iterdir()) == ["heldout.jsonl", "train.jsonl", "validation.jsonl"]


def test_a_failure_while_writing_leaves_nothing(
    tmp_path: Path, make: Any, medmind_data: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, rows: object) -> None:
        path.write_text("half", encoding="utf-8")
        if "heldout" in path.name:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(data_cli, "_write", full)
    result = medmind_data(make.jsonl(tmp_path / "a.jsonl", make.pairs()), "--out", tmp_path / "out")
    refused(result, "No space left")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["missing.csv"], ["missing.csv does not exist"]),
        (["./some/where"], ["./some/where does not exist"]),
        (["a.csv"], ["a.csv has the columns title, body", "wanted: question and answer"]),
        (["broken.xml"], ["no usable row", "broken.xml"]),
        (["empty.jsonl"], ["no usable row is left", "1 empty answer"]),
        (["mixed"], ["mixed mixes formats"]),
        (["good.jsonl", "--out", "a.csv"], ["a.csv is a file"]),
        (["good.jsonl", "--limit", "1"], ["the limit is 1"]),
        (["good.jsonl", "--share", "2"], ["the held-out share is 2"]),
        (["good.jsonl", "--path", "mixed"], ["--path goes with the source medquad"]),
        (["medquad", "--path", "nowhere"], ["nowhere does not exist"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path,
    make: Any,
    medmind_data: Command,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make.jsonl(tmp_path / "good.jsonl", make.pairs())
    make.jsonl(tmp_path / "empty.jsonl", [{"question": "Why?", "answer": " "}])
    Path("a.csv").write_text("title,body\nx,y\n", encoding="utf-8")
    Path("broken.xml").write_text("<Document><Focus>", encoding="utf-8")
    Path("mixed").mkdir()
    make.jsonl(Path("mixed/a.jsonl"), make.pairs())
    make.xml(Path("mixed/tree"))
    before = sorted(tmp_path.rglob("*"))
    result = medmind_data(*words, *([] if "--out" in words else ["--out", "out"]))
    if words == ["broken.xml"]:  # a skipped file is named on a line of its own before the verdict
        named, result.err = result.err.split("\n", 1)
        assert "broken.xml: not well-formed" in named
    refused(result, *parts)
    assert sorted(tmp_path.rglob("*")) == before
    assert not config_file().exists()


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, make: Any, medmind_data: Command) -> None:
    path = make.jsonl(tmp_path / "a.jsonl", make.pairs())
    path.chmod(0)
    refused(medmind_data(path), "a.jsonl cannot be read: Permission denied")


def test_a_file_whose_reading_fails_is_one_line(
    tmp_path: Path, make: Any, medmind_data: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = make.jsonl(tmp_path / "a.jsonl", make.pairs()), Path.open

    def denied(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    refused(medmind_data(path), "a.jsonl cannot be read: Permission denied")


def test_medquad_named_once_is_found_from_then_on(tmp_path: Path, make: Any, medmind_data: Command) -> None:
    tree = make.xml(tmp_path / "MedQuAD")
    assert "remembered" in medmind_data("medquad", "--path", tree).err
    result = medmind_data("medquad", "--json")
    document = json.loads(result.out)
    assert (document["source"], document["where"]) == ("medquad", str(tree))
    assert sum(document["counts"][side] for side in ("train", "validation", "heldout")) == 8


def test_a_path_that_holds_no_medquad_is_not_remembered(tmp_path: Path, medmind_data: Command) -> None:
    refused(medmind_data("medquad", "--path", tmp_path), "holds no data files")
    assert not config_file().exists()


def test_medquad_that_moved_away_is_one_line(tmp_path: Path, make: Any, medmind_data: Command) -> None:
    tree = make.xml(tmp_path / "MedQuAD")
    medmind_data("medquad", "--path", tree)
    tree.rename(tmp_path / "elsewhere")
    refused(medmind_data("medquad"), "remembered at", "medmind-train data medquad --path DIR")


def test_the_environment_names_medquad_before_what_was_remembered(
    tmp_path: Path, make: Any, medmind_data: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    medmind_data("medquad", "--path", make.xml(tmp_path / "one"))
    monkeypatch.setenv("MEDMIND_MEDQUAD", str(make.jsonl(tmp_path / "two.jsonl", make.pairs())))
    assert json.loads(medmind_data("medquad", "--json").out)["counts"]["read"] == 16
    monkeypatch.setenv("MEDMIND_MEDQUAD", str(tmp_path / "three"))
    refused(medmind_data("medquad"), "MEDMIND_MEDQUAD names", "does not exist")


def test_other_settings_in_the_users_file_stay(tmp_path: Path, make: Any, medmind_data: Command) -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text('{"theme": "dark"}', encoding="utf-8")
    medmind_data("medquad", "--path", make.xml(tmp_path / "one"))
    assert json.loads(config_file().read_text(encoding="utf-8"))["theme"] == "dark"


def test_the_group_takes_further_commands_beside_a_source(
    tmp_path: Path, make: Any, medmind_data: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make.jsonl(tmp_path / "a.jsonl", make.pairs())
    group = typer.Typer(cls=data_cli.DefaultCommandGroup, no_args_is_help=True)
    group.callback()(data_cli.data)
    group.command("show")(data_cli.show)

    @group.command("audit")
    def audit(source: str) -> None:
        typer.echo(f"audit of {source}")

    monkeypatch.setattr(data_cli, "data_app", group)
    assert medmind_data("audit", path).out == f"audit of {path}\n"
    for words in ([path, "--json"], ["--json", path], ["show", path, "--json"]):
        assert json.loads(medmind_data(*words).out)["counts"]["read"] == 16
    assert "audit" in medmind_data("--help").out


def test_help_names_the_options_and_no_word_at_all_is_help(medmind_data: Command) -> None:
    assert "audit" in medmind_data("--help").out
    assert "--share" in medmind_data("show", "--help").out
    assert "Usage" in medmind_data().out + medmind_data().err


def test_importing_the_data_room_loads_no_heavy_library() -> None:
    code = (
        "import sys, medmind_train.data, medmind_train.data_cli\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow', 'huggingface_hub', 'zstandard', 'numpy')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
