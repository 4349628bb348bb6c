"""Where a `--data` value leads and in which format it is: sample, medquad, path or data set id. Cleans nothing."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medmind.artifacts import read_json, write_json
from medmind.errors import MedmindError
from medmind_train.data import hub
from medmind_train.data.counts import SkippedFile
from medmind_train.data.files import head
from medmind_train.data.medquad_xml import UnusableXml, read_xml
from medmind_train.data.rows import Row
from medmind_train.data.tables import RowMaker, read_csv
from medmind_train.data.tables import read_json as read_json_rows

SAMPLE = "sample"
MEDQUAD = "medquad"
SAMPLE_PATH = Path(__file__).parent / "sample.jsonl"
MEDQUAD_VARIABLE = "MEDMIND_MEDQUAD"
MEDQUAD_HUB = "lavita/MedQuAD"
"""The edition on the hub that has kept the focus, which the split needs."""
HOW_TO_GET = (
    "get it with: git clone https://github.com/abachaa/MedQuAD, and name its place once: "
    "medmind-train data medquad --path MedQuAD"
)
_FORMATS = {
    "xml": "XML",
    "csv": "CSV",
    "tsv": "CSV",
    "jsonl": "JSON",
    "ndjson": "JSON",
    "json": "JSON",
    "parquet": "parquet/arrow",
    "arrow": "parquet/arrow",
}
_NO_DATA = {"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "package.json"}


@dataclass
class Source:
    """A source that was found.

    Attributes:
        name: what identifies it in a manifest: `sample`, `medquad`, a path or an id as the user gave it.
        where: the path or id that it led to.
        skipped: files passed over, complete once the rows were read.
    """

    name: str
    where: str
    _open: Callable[["Source"], Iterator[Row]]
    skipped: list[SkippedFile] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """The rows as they stand there, in a fixed order.

        Raises:
            MedmindError: something in it cannot be read, or formats are mixed.
        """
        self.skipped.clear()
        return self._open(self)


def find(value: str) -> Source:
    """Find what a `--data` value means; reads no row yet.

    Raises:
        MedmindError: there is nothing of that name, or nothing usable in it.
    """
    if value == SAMPLE:
        return _path_source(SAMPLE, SAMPLE_PATH)
    if value == MEDQUAD:
        return _medquad()
    path = Path(value).expanduser()
    if path.exists():
        return _path_source(value, path)
    if is_hub_id(value):
        return _hub_source(value, value)
    hint = f"give {SAMPLE}, {MEDQUAD}, a file, a directory or a data set id (owner/name)"
    raise MedmindError(f"{value} does not exist" if value else "no data was named", hint)


def is_hub_id(value: str) -> bool:
    """Whether a value that is no path of this machine can be a data set id."""
    return bool(hub.ID.fullmatch(value)) and not _looks_like_file(value)


def config_file() -> Path:
    """Where the path of MedQuAD is remembered: the user's configuration directory, as the platform has it."""
    if os.name == "nt":
        return Path(os.environ.get("APPDATA") or Path.home()) / "medmind" / "config.json"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medmind" / "config.json"


def remember_medquad(path: Path) -> None:
    """Remember where MedQuAD lies; other settings in the file stay."""
    file = config_file()
    write_json(file, {**(read_json(file) if file.exists() else {}), MEDQUAD: str(path.resolve())})


def _medquad() -> Source:
    """MedQuAD from the path named in the environment, else the remembered one, else the hub."""
    if named := os.environ.get(MEDQUAD_VARIABLE):
        if not Path(named).exists():
            raise MedmindError(f"{MEDQUAD_VARIABLE} names {named}, which does not exist", "correct or unset it")
        return _path_source(MEDQUAD, Path(named))
    file = config_file()
    remembered = read_json(file).get(MEDQUAD) if file.exists() else None
    if isinstance(remembered, str):
        if not Path(remembered).exists():
            raise MedmindError(
                f"MedQuAD was remembered at {remembered}, which does not exist any more",
                "name its place again: medmind-train data medquad --path DIR",
            )
        return _path_source(MEDQUAD, Path(remembered))
    return _hub_source(MEDQUAD, MEDQUAD_HUB)


def _hub_source(name: str, identifier: str) -> Source:
    def rows(source: Source) -> Iterator[Row]:
        maker = RowMaker(identifier)
        try:
            for record, place in hub.read_hub(identifier):
                yield maker.row(record, place)
        except MedmindError as error:
            if name != MEDQUAD:
                raise
            raise MedmindError(f"MedQuAD is not on this machine ({error.message})", HOW_TO_GET) from error

    return Source(name, identifier, rows)


def _path_source(name: str, path: Path) -> Source:
    label = "medmind sample" if name == SAMPLE else path.name
    if path.is_dir() and hub.is_saved(path):
        return Source(name, str(path), lambda _: _made(hub.read_saved(path), RowMaker(label)))
    if path.is_dir():
        form, files = _survey(path)
    else:
        form, files = _recognise(path), [path]

    def rows(source: Source) -> Iterator[Row]:
        maker = RowMaker(label)
        for file in files:
            if len(files) > 1:
                maker.source = file.name
            if form == "XML":
                try:
                    yield from read_xml(file)
                except UnusableXml as error:
                    source.skipped.append(SkippedFile(str(file), str(error)))
            elif form == "CSV":
                yield from read_csv(file, maker)
            elif form == "JSON":
                yield from read_json_rows(file, maker)
            else:
                yield from _made(hub.read_columnar(file), maker)

    return Source(name, str(path), rows)


def _made(records: Iterator[hub.Record], maker: RowMaker) -> Iterator[Row]:
    return (maker.row(record, place) for record, place in records)


def _suffix(name: str) -> str:
    """The format a file name promises, without a compression suffix; empty for anything else."""
    name = re.sub(r"\.(gz|zst|zstd)$", "", name.lower())
    return _FORMATS.get(name.rpartition(".")[2], "") if "." in name else ""


def _looks_like_file(value: str) -> bool:
    return bool(_suffix(value)) or value.startswith((".", "~")) or value.endswith((".tar", ".zip", ".txt", ".md"))


def _survey(directory: Path) -> tuple[str, list[Path]]:
    """The one format of a directory's data files, and the files in name order; hidden ones do not count."""
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.rglob("*"), key=lambda path: path.relative_to(directory).parts):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if not hidden and path.name not in _NO_DATA and (form := _suffix(path.name)) and path.is_file():
            found.setdefault(form, []).append(path)
    if not found:
        raise MedmindError(
            f"{directory} holds no data files", "wanted: .xml, .csv, .jsonl (also .gz, .zst), .parquet or .arrow"
        )
    if len(found) > 1:
        listed = ", ".join(f"{len(files)} {form} ({files[0].name})" for form, files in sorted(found.items()))
        raise MedmindError(f"{directory} mixes formats: {listed}", "name one file, or a directory of one format")
    return next(iter(found.items()))


def _recognise(path: Path) -> str:
    """The format of a single file, by its content; its name decides only between CSV and no data at all."""
    start = head(path)
    if start.startswith((b"PAR1", b"ARROW1")) or (start.startswith(b"\xff\xff\xff\xff") and path.suffix == ".arrow"):
        return "parquet/arrow"
    if start.startswith(b"<"):
        return "XML"
    if start.startswith((b"{", b"[")):
        return "JSON"
    if form := _suffix(path.name):
        return form
    if not start:
        raise MedmindError(f"{path} is empty")
    if b"\0" in start:
        raise MedmindError(f"{path} is no data file of a known format", "known: XML, CSV, JSON lines, parquet, arrow")
    return "CSV"
