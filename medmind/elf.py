"""Whether a shared library of Linux is whole. Knows of its format only what that takes.

The linker maps a file that was cut off without a word, and whoever touches what is missing is killed (SIGBUS).
Source: elf(5); `Elf64_Ehdr` and `Elf64_Phdr` of elf.h.
"""

import struct
from pathlib import Path

_HEADER, _SEGMENT = 64, 56
_BEGINNING = b"\x7fELF\x02\x01"
"""Of a file for 64 bits, the lower byte first."""


def is_whole(file: Path) -> bool:
    """Whether the file has every byte that its header says will be mapped; False for what is no such file.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as content:
        header = content.read(_HEADER)
        if len(header) < _HEADER or not header.startswith(_BEGINNING):
            return False
        (at,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
        if at > file.stat().st_size:
            return False
        content.seek(at)
        table = content.read(size * count)
    if size < _SEGMENT or len(table) < size * count:
        return False
    ends = []
    for place in range(0, len(table), size):
        begin, length = struct.unpack_from("<Q", table, place + 8)[0], struct.unpack_from("<Q", table, place + 32)[0]
        ends.append(begin + length)
    return bool(ends) and max(ends) <= file.stat().st_size
