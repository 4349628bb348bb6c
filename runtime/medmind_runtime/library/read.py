"""How answers are read from MedQuAD's forms (JSON lines, CSV, the XML tree) for a library; questions are left out.

So are chat rows with `messages`, which `medmind-train data SOURCE --out DIR` writes: of them the assistant's words.

Training reads the same forms into conversations; here a passage needs its address, which training does not keep.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from medmind.errors import MedmindError

_KINDS = (".jsonl", ".json", ".csv", ".xml")


@dataclass(frozen=True)
class Answer:
    """One answer: what it is about, its type ("symptoms"), its text, and where it is from."""

    focus: str
    kind: str
    text: str
    source: str
    url: str


def answers(path: Path) -> Iterator[Answer]:
    """Every answer of a file or of a folder's files, in name order; empty ones are left out.

    Raises:
        MedmindError: nothing there, or a file that cannot be read; file and line are named.
    """
    if not path.exists():
        raise MedmindError(f"{path} does not exist")
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() in _KINDS) if path.is_dir() else [path]
    if not files or any(one.suffix.lower() not in _KINDS for one in files):
        raise MedmindError(
            f"{path} is no source for a library", "wanted: MedQuAD as .jsonl, .csv, .xml or a folder of them"
        )
    for file in files:
        try:
            for answer in _READERS[file.suffix.lower()](file):
                if answer.text.strip():
                    yield answer
        except (ValueError, ElementTree.ParseError, csv.Error) as error:
            raise MedmindError(f"{file} cannot be read: {error}") from error


def _record(row: dict[str, object], file: Path) -> Answer:
    def field(*names: str) -> str:
        return next((str(row[name]).strip() for name in names if row.get(name)), "")

    if "answer" not in row and "messages" in row:
        row = {**row, "answer": _said(row["messages"])}
    if "answer" not in row:
        raise ValueError(f"a row without answer, it has {', '.join(map(str, row))[:100]}")
    return Answer(
        field("focus", "focus_area"), field("question_type", "qtype"), field("answer"),
        field("source") or file.stem, field("source_url", "url", "document_url"),
    )  # fmt: skip


def _said(messages: object) -> str:
    """What the assistant says in a chat row."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("a row whose messages are no list of objects")
    return "\n".join(str(one.get("content") or "") for one in messages if one.get("role") == "assistant")


def _json_lines(file: Path) -> Iterator[Answer]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is no JSON object")
                yield _record(row, file)


def _csv(file: Path) -> Iterator[Answer]:
    csv.field_size_limit(2**31 - 1)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for row in csv.DictReader(lines):
            yield _record(dict(row), file)


def _xml(file: Path) -> Iterator[Answer]:
    root = ElementTree.parse(file).getroot()
    named = {key.lower(): value for key, value in root.attrib.items()}
    focus = next(
        (" ".join("".join(e.itertext()).split()) for e in root.iter() if e.tag.lower() in ("focus", "doctitle-focus")),
        "",
    )
    for pair in (element for element in root.iter() if element.tag.lower() in ("qapair", "pair")):
        parts = {element.tag.lower(): element for element in pair}
        if "answer" in parts:
            kind = parts["question"].attrib.get("qtype", "") if "question" in parts else ""
            text = "".join(parts["answer"].itertext())
            yield Answer(focus, kind, text, named.get("source") or file.parent.name, named.get("url", ""))


_READERS = {".jsonl": _json_lines, ".json": _json_lines, ".csv": _csv, ".xml": _xml}
