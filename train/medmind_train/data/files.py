"""How a file's bytes are reached: plain, gzip or zstandard, told apart by their first bytes. Knows no data format."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, cast

from medmind.console import require
from medmind.errors import MedmindError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

_GZIP = b"\x1f\x8b"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed.

    Raises:
        MedmindError: on opening or while the block reads: it is missing, may not be read, or is damaged.
    """
    failures: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic[:2] == _GZIP:
                with gzip.open(file) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            elif magic == _ZSTANDARD:
                zstandard = require("zstandard", "train")
                failures = (*failures, zstandard.ZstdError)
                with io.BufferedReader(_Chunks(_unpack_zstandard(file, zstandard)), 1 << 20) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            else:
                yield file
    except FileNotFoundError:
        raise MedmindError(f"{path} does not exist") from None
    except failures as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise MedmindError(f"{path} cannot be read: {reason}") from error


def _unpack_zstandard(file: IO[bytes], zstandard: ModuleType) -> Iterator[bytes]:
    """The content of all frames; zstandard's own `stream_reader` takes a torn file for one that has ended."""
    within = False
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    while packed := file.read(1 << 17):
        while packed:
            yield unpacker.decompress(packed)
            within = not unpacker.eof
            packed = b"" if within else unpacker.unused_data
            if not within:
                unpacker = zstandard.ZstdDecompressor().decompressobj()
    if within:
        raise EOFError("the compressed file ends too soon")


class _Chunks(io.RawIOBase):
    """A stream of the bytes that an iterator gives."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text (with or without a byte-order mark), line ends untouched, as `csv` wants it.

    Raises:
        MedmindError: as `open_bytes`, and for text that is not UTF-8.
    """
    with open_bytes(path) as file:
        text = io.TextIOWrapper(cast("io.BufferedReader", file), encoding="utf-8-sig", newline="")
        try:
            yield text
        except UnicodeDecodeError as error:
            raise MedmindError(f"{path} is not UTF-8 text: {error.reason}", "save it as UTF-8") from error
        finally:
            text.detach()


def head(path: Path, size: int = 1024) -> bytes:
    """The first decompressed bytes of a file, without a byte-order mark and leading blanks."""
    with open_bytes(path) as file:
        return file.read(size).removeprefix(b"\xef\xbb\xbf").lstrip()
