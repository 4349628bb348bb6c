"""Documents out of plain text files and JSON lines, compressed or not. Knows no token."""

import bz2
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from medmind.console import require
from medmind.errors import MedmindError

_TEXT, _LINES = (".txt", ".md", ".text"), (".jsonl", ".ndjson")
_PIECE = 4000
_SURROGATE = re.compile("[\ud800-\udfff]")
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")


def find_files(sources: list[Path]) -> list[Path]:
    """The text files that `sources` name: files as given, directories searched through, in name order.

    Raises:
        MedmindError: a source that does not exist, a file of an unknown kind, or nothing found at all.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            found += sorted(path for path in source.rglob("*") if path.is_file() and _kind(path))
        elif source.is_file():
            if not _kind(source):
                raise MedmindError(
                    f"{source} is neither text nor JSON lines",
                    f"known endings: {', '.join(_TEXT + _LINES)}, also compressed",
                )
            found.append(source)
        else:
            raise MedmindError(f"{source} does not exist")
    if not found:
        raise MedmindError("no text file was found", "give .txt or .jsonl files, or a directory of them")
    return found


def documents(files: list[Path]) -> Iterator[str]:
    """The text of every record, see `records`."""
    for text, _ in records(files):
        yield text


def records(files: list[Path]) -> Iterator[tuple[str, str]]:
    """Every non-empty document and its source, empty where none is named.

    A line of JSON lines is a document under its key `text`, its source under `source`; text files are cut at line ends.

    A piece of a text file ends at the first blank line after `_PIECE` characters, or at the first line end after twice
    as many, so that a book can be shuffled and a part of it held out.
    """
    for file in files:
        try:
            with _open(file) as stream:
                yield from _read(file, stream)
        except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
            raise MedmindError(f"{file} cannot be read: {error}", "is the file whole and UTF-8?") from error


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    last = suffixes[-1] if suffixes else ""
    return "text" if last in _TEXT else "lines" if last in _LINES else ""


def _open(file: Path) -> IO[str]:
    match file.suffix.lower():
        case ".gz":
            return gzip.open(file, "rt", encoding="utf-8-sig")
        case ".xz":
            return lzma.open(file, "rt", encoding="utf-8-sig")
        case ".bz2":
            return bz2.open(file, "rt", encoding="utf-8-sig")
        case ".zst":
            reader = require("zstandard", "train").ZstdDecompressor().stream_reader(file.open("rb"), closefd=True)
            return io.TextIOWrapper(reader, encoding="utf-8-sig")
    return file.open(encoding="utf-8-sig")


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _PIECE and (not line.strip() or size >= 2 * _PIECE):
            if text := "".join(held).strip():
                yield text
            held, size = [], 0
    if text := "".join(held).strip():
        yield text


def _read(file: Path, stream: IO[str]) -> Iterator[tuple[str, str]]:
    if _kind(file) == "text":
        for piece in _pieces(stream):
            yield piece, ""
        return
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            text = record["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise MedmindError(f"{file}:{number} is no JSON object with a 'text'") from None
        if isinstance(text, str) and text.strip():
            if not text.isprintable() and _SURROGATE.search(text):
                raise MedmindError(f"{file}:{number} has half a character (a lone surrogate)", "write that line anew")
            source = record.get("source")
            yield text.strip(), source if isinstance(source, str) else ""
