"""Whether the bytes of a GGUF are those that were written, by the digests it carries. Knows no tokenizer and no source.

A digest lies over the header (its own text as zeros) and over each tensor up to the next one's first byte: together
over every byte of the file.
"""

import os
import re
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from medmind import console, gguf_header
from medmind.errors import MedmindError
from medmind.gguf_header import Header
from medmind_convert.gguf_file import HEADER_DIGEST, NO_DIGEST, TENSOR_DIGESTS, sha256_text
from medmind_convert.partial import digest_of

HEADER = "the header"
"""Stands among the damaged parts for metadata, tensor table and the digests themselves."""
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class Integrity:
    """What was found of one file.

    Attributes:
        file: its path.
        bytes: its size.
        tensors: number of tensors.
        digests: whether it carries digests; without them the structure alone was checked.
        damaged: what differs from its digest: `HEADER` or names of tensors.
        header: what it says of itself.
    """

    file: Path
    bytes: int
    tensors: int
    digests: bool
    damaged: tuple[str, ...]
    header: Header

    @property
    def kind(self) -> str:
        """`model`, `adapter` or `imatrix`, as the file says."""
        return str(self.header.scalars.get("general.type", "model"))


def shards(file: Path) -> list[Path]:
    """All files of the model that a file belongs to, in order: itself alone, or every shard of a split one.

    Raises:
        MedmindError: a shard is missing.
    """
    match = _SHARD.fullmatch(file.name)
    if match is None:
        return [file]
    count = int(match[3])
    found = [file.with_name(f"{match[1]}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    for shard in found:
        if not shard.is_file():
            raise MedmindError(f"{shard} is missing: the model has {count} files", "copy them all into one folder")
    return found


def check(file: Path, *, threads: int | None = None) -> Integrity:
    """Read a whole file and compare it with its digests; any single changed bit is found.

    Raises:
        MedmindError: it is no whole GGUF, or its structure contradicts itself.
        OSError: it cannot be read.
    """
    size = file.stat().st_size if file.is_file() else 0
    header = gguf_header.read(file)
    _refuse_gaps(file, header, size)
    carried = {HEADER_DIGEST, TENSOR_DIGESTS} & header.places.keys()
    if not carried:
        return Integrity(file, size, len(header.tensors), False, (), header)
    with file.open("rb") as stream:
        start = stream.read(header.start)
    damaged = [] if _header_is_whole(start, header) else [HEADER]
    digests = _tensor_digests(start, header)
    if len(digests) == len(header.tensors):
        with console.progress(f"verifying {file.name}", size, "B") as advance:
            advance(header.start)
            damaged += _damaged_tensors(file, header, size, digests, threads or os.cpu_count() or 1, advance)
    elif not damaged:  # cannot be by one bit: a header that agrees with its digest, and lists other tensors
        damaged = [HEADER]
    return Integrity(file, size, len(header.tensors), True, tuple(damaged), header)


def _refuse_gaps(file: Path, header: Header, size: int) -> None:
    """Each tensor begins where the one before it ends, the first after the header, and the last ends the file."""
    again = "copy or convert it again"
    if header.tensors and header.tensors[0].offset != header.start:
        raise MedmindError(f"{file} is damaged: its first tensor lies elsewhere than after the header", again)
    for before, after in pairwise(header.tensors):
        end = before.offset + before.size
        known = before.size > 0
        if after.offset < end or (known and after.offset - end >= header.alignment):
            raise MedmindError(f"{file} is damaged: {after.name} does not lie where {before.name} ends", again)
    if header.tensors and header.tensors[-1].size > 0 and size - header.end >= header.alignment:
        raise MedmindError(f"{file} is damaged: {size - header.end} bytes follow its last tensor", again)


def _header_is_whole(start: bytes, header: Header) -> bool:
    stated = header.scalars.get(HEADER_DIGEST)
    if not isinstance(stated, str) or len(stated) != len(NO_DIGEST):
        return False
    at = header.places[HEADER_DIGEST] + 8  # after the length of its text
    return sha256_text(start[:at] + NO_DIGEST.encode() + start[at + len(NO_DIGEST) :]) == stated


def _tensor_digests(start: bytes, header: Header) -> list[str]:
    """The digests of all tensors in the order of the table; fewer or none where their list is damaged."""
    at = header.places.get(TENSOR_DIGESTS)
    if at is None:
        return []
    (count,) = struct.unpack_from("<Q", start, at + 4)
    at += 12
    found = []
    for _ in range(min(count, len(header.tensors))):
        if len(start) < at + 8 + len(NO_DIGEST):
            break
        found.append(start[at + 8 : at + 8 + len(NO_DIGEST)].decode("utf-8", "replace"))
        at += 8 + len(NO_DIGEST)
    return found


def _damaged_tensors(
    file: Path, header: Header, size: int, digests: Sequence[str], threads: int, advance: Callable[..., None]
) -> list[str]:
    ends = [*(tensor.offset for tensor in header.tensors[1:]), size]

    def damaged(number: int) -> bool:
        begin, end = header.tensors[number].offset, ends[number]
        with file.open("rb", buffering=0) as stream:
            found = digest_of(stream, begin, end - begin)
        advance(end - begin)
        return found != digests[number]

    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            bad = list(pool.map(damaged, range(len(digests))))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [tensor.name for tensor, is_bad in zip(header.tensors, bad, strict=True) if is_bad]
