"""One file in the making: written under a hidden name, resumed after any end of the process, named when it is whole.

Beside the partial file lies a journal: what the file is made from, then a line for each finished tensor with its
digest. Knows no quantization.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from medmind import artifacts, console, disk_errors
from medmind.locks import hold
from medmind_convert.gguf_file import NO_DIGEST, Layout, Slot, sha256_text

FORMAT = "medmind-journal/1"
_CHUNK = 1 << 20


def states(files: Sequence[Path]) -> dict[str, list[int]]:
    """Size and time of change (nanoseconds) of files, by which a change is noticed."""
    found = {}
    for file in files:
        state = file.stat()
        found[str(file.resolve())] = [state.st_size, state.st_mtime_ns]
    return found


def journal_of(final: Path) -> Path:
    """Where the journal of a file in the making lies."""
    return final.with_name(f".{final.name}.journal")


class Partial:
    """A GGUF on its way to `final`.

    Args:
        final: its name when it is whole.
        layout: its header and the places of its tensors.
        made_from: anything JSON can hold that must be the same for a resumed file: inputs, options, versions.
        begun: whether a start that was ended may have finished this file, and removed its journal, before others'.

    Raises:
        MedmindError: another process is writing the same file.
        OSError: the disk is full, or cannot be written.
    """

    def __init__(self, final: Path, layout: Layout, made_from: Mapping[str, Any], *, begun: bool = False) -> None:
        self.final = final
        self.layout = layout
        self.path = final.with_name(f".{final.name}.partial")
        self.done: dict[str, str] = {}
        self.slots = {slot.name: slot for slot in layout.slots}
        self._identity = {"format": FORMAT, "header": sha256_text(layout.header), **made_from}
        self._journal_path = journal_of(final)
        before = layout.sealed_in(final) if begun and not self._journal_path.exists() else []
        self._journal = self._journal_path.open("a+b")
        self._file: BinaryIO | None = None
        try:
            hold(self._journal, final)
            records = self._records()
            self.published = bool(records) and final.exists() and not self.path.exists()
            if self.published:
                self.done = self._claimed(records)
            elif before:
                self.published = True
                self.done = {slot.name: digest for slot, digest in zip(layout.slots, before, strict=True)}
            if self.published:
                return
            if records and self.path.is_file() and self.path.stat().st_size == layout.size:
                self._file = self.path.open("r+b")
                self._take_up(records)
                return
        except BaseException:
            self.close()
            raise
        try:
            with disk_errors.named(self.final):
                self._begin()
        except BaseException:
            self.discard()
            raise

    @property
    def missing(self) -> int:
        """Bytes of the file that are not on the disk yet."""
        if self.published:
            return 0
        return self.layout.size - sum(self.slots[name].size for name in self.done)

    def _records(self) -> list[dict[str, Any]]:
        """The journal's lines if it is this file's, else none; a last line that was cut is dropped."""
        self._journal.seek(0)
        lines, length = [], 0
        for line in self._journal.read().splitlines(keepends=True):
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
            if not line.endswith(b"\n"):
                lines.pop()
                break
            length += len(line)
        if not lines or lines[0] != self._identity:
            if lines and self.path.exists():
                console.note(f"{self.path} was begun from other inputs or options: {self.final.name} starts anew")
            return []
        self._journal.truncate(length)
        return lines

    def _begin(self) -> None:
        self._journal.truncate(0)
        self._file = self.path.open("w+b")
        self._file.write(self.layout.header)
        self._file.flush()
        if hasattr(os, "posix_fallocate"):  # a disk that is too full says so now
            os.posix_fallocate(self._file.fileno(), 0, self.layout.size)
        else:
            self._file.truncate(self.layout.size)
        self._note(self._identity)

    def _take_up(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Believe the journal where the file's bytes agree: a power cut may have lost what was noted as written."""
        assert self._file is not None
        claimed = self._claimed(records)
        total = sum(self.slots[name].size for name in claimed)
        with console.progress(f"resuming {self.final.name}", total, "B") as advance:
            for name, digest in claimed.items():
                if digest_of(self._file, self.slots[name].offset, _whole(self.slots[name])) == digest:
                    self.done[name] = digest
                advance(self.slots[name].size)
        self._file.seek(0)
        self._file.write(self.layout.header)
        if self.done:
            console.note(f"{self.final.name}: {len(self.done)} of {len(self.slots)} tensors are there already")

    def _claimed(self, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        return {record["tensor"]: record["digest"] for record in records[1:] if record.get("tensor") in self.slots}

    def _note(self, record: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(record).encode() + b"\n")
        self._journal.flush()

    def write(self, name: str, at: int, data: bytes | memoryview) -> None:
        """Put bytes of a tensor at their place, `at` bytes from its start."""
        assert self._file is not None
        with disk_errors.named(self.final):
            self._file.seek(self.slots[name].offset + at)
            self._file.write(data)

    def finish(self, name: str, digest: str) -> None:
        """Note a tensor as whole.

        Args:
            name: the tensor.
            digest: of its bytes and padding.
        """
        assert self._file is not None
        slot = self.slots[name]
        self.write(name, slot.size, b"\0" * slot.padding)
        with disk_errors.named(self.final):
            self._file.flush()
            self._note({"tensor": name, "digest": digest})
        self.done[name] = digest

    def seal(self) -> None:
        """Write the digests into the header and the whole file to the disk; every tensor must be finished."""
        if self.published:
            return
        assert self._file is not None
        if self.layout.digests:  # the rest of the header lies there since the start
            sealed = self.layout.sealed([self.done[slot.name] for slot in self.layout.slots])
            first, end = min(self.layout.digests), max(self.layout.digests) + len(NO_DIGEST)
            self._file.seek(first)
            self._file.write(sealed[first:end])
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def publish(self) -> None:
        """Give the sealed file its name. The journal stays until `forget`, and says that the file is this one."""
        if not self.published:
            self.path.replace(self.final)
            artifacts.sync_directory(self.final.parent)
            self.published = True

    def forget(self) -> None:
        """Remove the journal: all is done."""
        self._journal_path.unlink(missing_ok=True)
        self.close()

    def discard(self) -> None:
        """Remove what has been written."""
        if self._file is not None:
            with suppress(OSError):  # bytes that a full disk did not take are tried once more here
                self._file.close()
        self.path.unlink(missing_ok=True)
        self.forget()

    def close(self) -> None:
        """Let go of the files, which stay for resuming."""
        for stream in (self._file, self._journal):
            if stream is not None:
                with suppress(OSError):  # as in `discard`
                    stream.close()


def digest_of(stream: BinaryIO, start: int, length: int) -> str:
    """`sha256:<hex>` of bytes of an open file; of fewer where it ends before."""
    stream.seek(start)
    found = hashlib.sha256()
    while length > 0 and (data := stream.read(min(_CHUNK, length))):
        found.update(data)
        length -= len(data)
    return f"sha256:{found.hexdigest()}"


def _whole(slot: Slot) -> int:
    return slot.size + slot.padding
