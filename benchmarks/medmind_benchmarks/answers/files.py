"""Files of published question sets, here or on the hub, as records. Knows forms of files, not what a record means."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmind import console, hub_data
from medmind.console import require
from medmind.errors import MedmindError
from medmind_benchmarks.answers import layout, published
from medmind_benchmarks.answers.questions import LETTERS, QuestionSet

Record = tuple[Mapping[str, Any], str]
"""A record and the place where it stands."""
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_SCORED_SPLITS = ("validation", "dev", "test", "val")
_LABELLED = "pqa_labeled"
_MMLU_ROW = 6


def load(source: str) -> QuestionSet:
    """The questions of a file, a folder of files, or a hub data set (`owner/name` or `owner/name:config`).

    Raises:
        MedmindError: nothing there, a form that is not read here, or no known data set.
    """
    path = Path(source)
    if path.is_file():
        return published.build(list(_records(path)), source)
    if path.is_dir():
        return _best(_files(path), source)
    if not hub_data.ID.fullmatch(source):
        raise MedmindError(
            f"{source} does not exist", "give a file of questions, or the id of a data set of the hub (owner/name)"
        )
    return _best(hub_data.fetch(source, _wanted), source)


def _wanted(names: Sequence[str], config: str) -> list[str]:
    """Files of a hub data set worth fetching: of the config, of medical subjects, and no training split beside others.

    PubMedQA's labelled part is its only split, and called train.
    """
    readable = [name for name in names if name.endswith(_SUFFIXES) and "dataset_info" not in name]
    if config:
        readable = [name for name in readable if config in Path(name).parts]
    readable = [name for name in readable if _LABELLED in Path(name).parts] or readable
    medical = [name for name in readable if Path(name).parent.name in published.MMLU_MEDICAL]
    chosen = medical or readable
    return [name for name in chosen if any(split in Path(name).name.lower() for split in _SCORED_SPLITS)] or chosen


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and not path.name.startswith("."))
    if not found:
        raise MedmindError(f"{folder} holds no file of questions", f"the forms read are {', '.join(_SUFFIXES)}")
    return [path for path in found if _LABELLED in path.parts] or found


def _best(files: Sequence[Path], source: str) -> QuestionSet:
    """The questions of the preferred split that has answers; says which that is."""
    unanswered: published.Unanswered | None = None
    for part in layout.parts(files, source):
        where = f"{source} [{part.split}]" if part.split else source
        records = [record for path in part.files for record in _records(path)]
        if part.truth:
            records = _judged(records, part.truth)
        try:
            found = published.build(records, where)
        except published.Unanswered as error:
            unanswered = unanswered or error
            continue
        more = f" and {len(part.files) - 1} more files" if len(part.files) > 1 else ""
        truth = f", those in {part.truth.name}" if part.truth else ""
        console.note(f"{found.name}: {len(found.questions)} questions of {part.files[0]}{more}{truth}")
        return found
    assert unanswered
    raise unanswered


def _judged(records: Sequence[Record], truth: Path) -> list[Record]:
    """PubMedQA's records of the test split, with the answers that its own file gives."""
    answers = _document(truth)
    if not isinstance(answers, dict) or not all(isinstance(answer, str) for answer in answers.values()):
        raise MedmindError(f"{truth} is no object of answers by PubMed id", "download it again")
    found: list[Record] = [
        ({**record, "final_decision": answers[str(record["pmid"])]}, place)
        for record, place in records
        if str(record.get("pmid")) in answers
    ]
    if len(found) < len(answers):
        raise MedmindError(
            f"{len(answers) - len(found)} of the {len(answers)} questions of {truth} are not in {layout.PUBMEDQA}",
            "download both again",
        )
    return found


def _records(path: Path) -> Iterator[Record]:
    if path.suffix == ".csv":
        yield from _csv(path)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".json", ".jsonl"):
        yield from _json(path)
    else:
        raise MedmindError(f"{path} is of a form that is not read here", f"the forms are {', '.join(_SUFFIXES)}")


def _json(path: Path) -> Iterator[Record]:
    """One document (a list, or PubMedQA's object of records by id), or one object a line, whatever the suffix says."""
    document = _document(path)
    if path.name == layout.GROUND_TRUTH:
        raise MedmindError(f"{path} holds answers without their questions", f"give the folder, {layout.PUBMEDQA} in it")
    if isinstance(document, dict) and document and all(isinstance(value, dict) for value in document.values()):
        document = [{"pmid": name, **value} for name, value in document.items()]
    elif isinstance(document, dict):
        document = [document]
    if not isinstance(document, list) or not all(isinstance(record, dict) for record in document):
        raise MedmindError(f"{path} holds no records", "it needs a list of objects, or one object a line")
    for number, record in enumerate(document, 1):
        yield _subject(record, path), f"{path}, record {number}"


def _document(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MedmindError(f"{path} is not text: {error}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # not splitlines, which also breaks at U+0085, U+2028 and U+2029 inside strings
        return [_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise MedmindError(f"{path}:{number} is not valid JSON: {error}", "download it again") from error


def _csv(path: Path) -> Iterator[Record]:
    """With a header, or as MMLU's: question, four options, letter."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MedmindError(f"{path} is no CSV: {error}") from error
    if rows and len(rows[0]) == _MMLU_ROW and rows[0][-1].strip() in LETTERS[:4]:
        subject = path.name.removesuffix(".csv").rpartition("_")[0] or path.stem
        for number, row in enumerate(rows, 1):
            if len(row) != _MMLU_ROW:
                raise MedmindError(f"{path}:{number} has {len(row)} columns, not {_MMLU_ROW}", "download it again")
            yield (
                {"question": row[0], "choices": row[1:5], "answer": row[5], "subject": subject},
                f"{path}, row {number}",
            )
        return
    for number, row in enumerate(rows[1:], 2):
        yield dict(zip(rows[0], row, strict=False)), f"{path}, row {number}"


def _parquet(path: Path) -> Iterator[Record]:
    parquet = require("pyarrow.parquet", "bench")
    arrow = require("pyarrow", "bench")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, arrow.ArrowException) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MedmindError(f"{path} cannot be read: {first}", "download it again") from error
    for number, record in enumerate(rows, 1):
        yield _subject(record, path), f"{path}, row {number}"


def _subject(record: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """MMLU keeps a subject in a folder of its own on the hub."""
    if "choices" in record and not record.get("subject") and path.parent.name in published.MMLU_MEDICAL:
        return {**record, "subject": path.parent.name}
    return record
