"""Small sources in every format, in our own words, and the `data` command run in process."""

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from medmind import console
from medmind_train.data_cli import register

FOCUSES = ["Hay fever", "Nosebleed", "Sprained ankle", "Motion sickness", "Dry eye", "Bunion", "Hiccups", "Sty"]
XML = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="{id}" source="Made up" url="http://localhost/">
<Focus>{focus}</Focus>
<QAPairs>
<QAPair pid="1"><Question qid="{id}-1" qtype="information">What is (are) {focus} ?</Question>
<Answer>{focus} is a passing nuisance &amp; rarely serious.</Answer></QAPair>
<QAPair pid="2"><Question qid="{id}-2" qtype="treatment">What are the treatments for {focus} ?</Question>
<Answer></Answer></QAPair>
</QAPairs>
</Document>
"""


def pairs(focuses: Iterable[str] = FOCUSES) -> list[dict[str, str]]:
    """Two questions on each focus."""
    return [
        {
            "question": question.format(focus.lower()),
            "answer": answer.format(focus),
            "focus": focus,
            "question_type": kind,
            "source": "Made up",
        }
        for focus in focuses
        for kind, question, answer in (
            ("information", "What is {}?", "{} is a passing nuisance that most people meet once."),
            ("treatment", "What helps with {}?", "{} mostly needs rest, patience and some water."),
        )
    ]


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text))
    elif path.suffix == ".zst":
        import zstandard

        path.write_bytes(zstandard.compress(text))
    else:
        path.write_bytes(text)
    return path


def write_csv(path: Path, records: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(records)
    return path


def write_xml_tree(root: Path, focuses: Iterable[str] = FOCUSES) -> Path:
    for number, focus in enumerate(focuses):
        folder = root / f"{number % 2}_Part_QA"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:07}.xml").write_text(XML.format(id=f"{number:07}", focus=focus), encoding="utf-8")
    return root


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def medmind_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `medmind-train data …`; returns exit code, stdout and stderr."""

    def run(*words: object) -> Result:
        app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, add_completion=False)
        app.callback()(lambda: None)
        register(app)
        monkeypatch.setattr(sys, "argv", ["medmind-train", "data", *map(str, words)])
        capsys.readouterr()
        code: object = 0
        try:
            console.run(app)
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Result(int(code or 0), captured.out, captured.err)  # type: ignore[call-overload]

    return run


@pytest.fixture(autouse=True)
def own_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user configuration directory of this test's own."""
    home = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("APPDATA", str(home))
    monkeypatch.delenv("MEDMIND_MEDQUAD", raising=False)
    return home


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real samples; a test that wants them is skipped where they are absent."""
    path = Path(__file__).parents[4] / "shared" / "medquad"
    if not path.is_dir():
        pytest.skip("no real MedQuAD beside this checkout")
    return path


@pytest.fixture
def make() -> Any:
    """The writers above, for tests: with importlib mode a conftest cannot be imported by name."""

    class Make:
        focuses = FOCUSES
        pairs = staticmethod(pairs)
        jsonl = staticmethod(write_jsonl)
        csv = staticmethod(write_csv)
        xml = staticmethod(write_xml_tree)

    return Make
