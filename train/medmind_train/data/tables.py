"""How CSV and JSON-lines files are read into rows. Knows the two file formats; column names are `rows`' business."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmind.errors import MedmindError
from medmind_train.data.files import head, open_bytes, open_text
from medmind_train.data.rows import Kind, Row, columns_of, row_of

_DELIMITERS = (",", ";", "\t")


@dataclass
class RowMaker:
    """Turns the records of one source into rows, and holds them to one format.

    Attributes:
        source: the rows' source when a record names none.
        kind: of the first record seen.
    """

    source: str = ""
    kind: Kind | None = field(default=None, init=False)

    def row(self, record: Mapping[str, Any], place: str) -> Row:
        """Make a row of a record that stands at `place`.

        Raises:
            MedmindError: no row, or one of another format than the rows before.
        """
        names = tuple(record)
        try:
            columns = columns_of(names, "")  # a constant place: the cache then serves all records of a file
        except MedmindError:
            columns = columns_of(names, place)
        self.kind = self.kind or columns.kind
        if columns.kind != self.kind:
            raise MedmindError(
                f"{place} is a {columns.kind} row where the ones before are {self.kind} rows: formats are mixed",
                "keep one format in a file or directory",
            )
        return row_of(record, columns, place, self.source)


def read_csv(path: Path, maker: RowMaker) -> Iterator[Row]:
    """Rows of a CSV file with a header, as Kaggle's medquad.csv; comma, semicolon or tab between the cells.

    Raises:
        MedmindError: unreadable, without the wanted columns, or a line with more cells than the header.
    """
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a long answer may have
    with open_text(path) as file:
        first = file.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        columns_of(tuple(names), str(path))
        reader = csv.reader(file, delimiter=delimiter)
        while True:
            place = f"{path}:{reader.line_num + 2}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise MedmindError(f"{place} is not valid CSV: {error}") from error
            if not cells:
                continue
            if len(cells) > len(names):
                raise MedmindError(
                    f"{place} has {len(cells)} cells, the header {len(names)}", "put texts with commas in quotes"
                )
            yield maker.row(dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=True)), place)


def read_json(path: Path, maker: RowMaker) -> Iterator[Row]:
    """Rows of a file of JSON objects: one a line, or one array of them.

    Raises:
        MedmindError: unreadable, or a line that is no JSON object or no row; file and line are named.
    """
    if head(path, 64)[:1] == b"[":
        yield from _read_array(path, maker)
        return
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            place = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                record = json.loads(text)
            except UnicodeDecodeError as error:
                raise MedmindError(f"{place} is not UTF-8 text: {error.reason}") from error
            except (json.JSONDecodeError, RecursionError) as error:
                raise MedmindError(f"{place} is not valid JSON: {error}") from error
            if not isinstance(record, dict):
                raise MedmindError(f"{place} is {type(record).__name__}, not a JSON object")
            yield maker.row(record, place)


def _read_array(path: Path, maker: RowMaker) -> Iterator[Row]:
    with open_text(path) as file:
        try:
            records = json.load(file)
        except (json.JSONDecodeError, RecursionError) as error:
            raise MedmindError(f"{path} is not valid JSON: {error}") from error
    for number, record in enumerate(records, 1):
        place = f"{path}, element {number},"
        if not isinstance(record, dict):
            raise MedmindError(f"{place} is {type(record).__name__}, not a JSON object")
        yield maker.row(record, place)
