"""Files of a hub model in the local cache: which are there, whether they are whole, and how one gets there.

Knows huggingface_hub's cache layout (blobs named by digest, snapshots linking to them) and its transfer of one file;
does not choose files and asks nobody.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from medmind import base
from medmind.artifacts import write_text
from medmind.errors import MedmindError

TIMEOUT = 10.0
"""Seconds to wait for the hub's answer."""
COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOB_ID_LIMIT = 1 << 30
_CHECKED = ".medmind-checked"
_PIECE = 1 << 20
"""Bytes between two signs of progress, and what a kill may lose; huggingface_hub's own are ten times that."""
_ATTEMPTS = 2  # each is six of huggingface_hub's own, a second apart


@dataclass(frozen=True)
class HubFile:
    """One file of a repository.

    Attributes:
        name: inside the repository.
        size: bytes; None where the listing does not tell.
        sha256: hex digest of an LFS file, else empty.
        blob: git's blob id of any other file, else empty.
    """

    name: str
    size: int | None
    sha256: str
    blob: str

    @classmethod
    def listed(cls, entry: Any) -> "HubFile":
        """From a `RepoSibling` of `HfApi.model_info(files_metadata=True)`."""
        sha256 = entry.lfs.sha256 if entry.lfs else ""
        return cls(entry.rfilename, entry.size, sha256 if _SHA256.fullmatch(sha256) else "", entry.blob_id or "")

    def matches(self, path: Path) -> bool:
        """Whether `path` has the bytes that the hub lists: by sha256, by git's blob id, or at least by length."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return False
        with path.open("rb") as stream:
            if self.sha256:
                return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256
            if COMMIT.fullmatch(self.blob) and size < _BLOB_ID_LIMIT:
                content = b"blob %d\0" % size + stream.read()
                return hashlib.sha1(content, usedforsecurity=False).hexdigest() == self.blob
        return True


@dataclass(frozen=True)
class ModelCache:
    """The folder that the hub's cache keeps for one model.

    Attributes:
        hub: the huggingface_hub package.
        repo_id: `owner/model`.
    """

    hub: ModuleType
    repo_id: str

    @property
    def root(self) -> Path:
        """The cache of all models."""
        return Path(self.hub.constants.HF_HUB_CACHE)

    @property
    def folder(self) -> Path:
        """This model's folder, whether or not it exists."""
        return self.root / str(self.hub.file_download.repo_folder_name(repo_id=self.repo_id, repo_type="model"))

    def complete(self, ref: str) -> tuple[Path, str] | None:
        """The snapshot that branch, tag or commit `ref` had when it was last fetched, if it is all there."""
        pointer = self.folder / "refs" / ref
        commit = ref if COMMIT.fullmatch(ref) else pointer.read_text("utf-8").strip() if pointer.is_file() else ""
        snapshot = self.folder / "snapshots" / commit
        if not COMMIT.fullmatch(commit) or not (snapshot / "config.json").is_file():
            return None
        try:
            base.weight_files(snapshot)
        except MedmindError:
            return None
        return (snapshot, commit) if any((snapshot / name).is_file() for name in base.TOKENIZER_FILES) else None

    def unchecked(self, snapshot: Path) -> list[Path]:
        """Weights of a snapshot that were changed since their digest was last seen to be right, or never checked.

        Only what the cache names by its sha256 can be: on a file system without links it is not known any more.
        """
        return [
            path
            for path in base.weight_files(snapshot)
            if _SHA256.fullmatch(path.resolve().name) and self._seen(path.resolve()) != _state(path.resolve())
        ]

    def check(self, path: Path, advance: Callable[..., None]) -> bool:
        """Whether a cached file has the bytes that its name promises; remembered until it changes."""
        blob, digest = path.resolve(), hashlib.sha256()
        with blob.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                advance(len(piece))
        if digest.hexdigest() != blob.name:
            return False
        self.checked(blob)
        return True

    def checked(self, blob: Path) -> None:
        """Remember that a blob is right as it is now."""
        write_text(self.folder / _CHECKED / blob.name, _state(blob))

    def _seen(self, blob: Path) -> str:
        note = self.folder / _CHECKED / blob.name
        return note.read_text("utf-8") if note.is_file() else ""

    def remember(self, ref: str, commit: str) -> None:
        """Let a branch or tag lead to `commit`; called when the snapshot is whole, never before."""
        pointer = self.folder / "refs" / ref
        if ref == commit or (pointer.is_file() and pointer.read_text("utf-8").strip() == commit):
            return
        write_text(pointer, commit)


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model in the cache, whole or not yet."""

    cache: ModelCache
    commit: str

    @property
    def path(self) -> Path:
        """The directory of the model's files."""
        return self.cache.folder / "snapshots" / self.commit

    def holds(self, file: HubFile) -> bool:
        """Whether `file` is here in its full length; what is here in another length is removed."""
        path = self.path / file.name
        if not path.is_file():
            return False
        if file.size is None or path.stat().st_size == file.size:
            return True
        discard(path)
        return False

    def missing(self, file: HubFile) -> int:
        """Bytes of `file` that are still to be fetched, after what earlier attempts brought."""
        blob = self._blob(file)
        return 0 if blob.is_file() else max(0, (file.size or 0) - _length(_partial(blob)))

    def located(self, file: HubFile) -> HubFile:
        """`file` with its size asked for, and without its sha256 where the hub names the blob otherwise (etag).

        Raises:
            huggingface_hub.errors.GatedRepoError: before a byte of it is fetched.
        """
        found = self.cache.hub.get_hf_file_metadata(self._url(file), timeout=TIMEOUT)
        size = file.size if file.size is not None else found.size
        return replace(file, size=size, sha256=file.sha256 if found.etag == file.sha256 else "")

    def fetch_small(self, file: HubFile) -> None:
        """Download through the library, from its beginning to its end, and check it."""
        if self.holds(file):
            return
        path = Path(self.cache.hub.hf_hub_download(self.cache.repo_id, file.name, revision=self.commit))
        if not file.matches(path):
            discard(path)
            raise self._corrupted(file)

    def fetch_large(self, file: HubFile, advance: Callable[..., None]) -> None:
        """Download into the cache's blob of that sha256, then let the library make the snapshot's link to it.

        huggingface_hub 2.x throws a partial file away when it is interrupted, and checks no digest over plain HTTP;
        the five gigabytes of a shard are worth both.
        """
        if not file.sha256:  # a mirror that names its blobs in its own way
            self.fetch_small(file)
            return
        hub, blob = self.cache.hub, self._blob(file)
        partial = _partial(blob)
        locks = self.cache.root / ".locks" / self.cache.folder.name
        locks.mkdir(parents=True, exist_ok=True)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with hub.utils.WeakFileLock(locks / f"{file.sha256}.lock"):
            if not blob.is_file():
                self._transfer(file, partial, advance)
                advance(0, status="checking")
                if not file.matches(partial):
                    partial.unlink()
                    raise self._corrupted(file)
                partial.replace(blob)
                self.cache.checked(blob)
                advance(0)
        pointer = Path(hub.hf_hub_download(self.cache.repo_id, file.name, revision=self.commit))
        if not pointer.is_symlink():  # no links on this file system: the library made a second copy
            blob.unlink(missing_ok=True)

    def _transfer(self, file: HubFile, partial: Path, advance: Callable[..., None]) -> None:
        """Append what is missing; a connection that breaks is taken up again while it still brings bytes."""

        class Bar:
            """The part of tqdm's interface that `http_get` uses."""

            def __init__(self, **_: object) -> None: ...

            def __enter__(self) -> "Bar":
                return self

            def __exit__(self, *_: object) -> None: ...

            def update(self, count: float = 1) -> None:
                advance(count)

        hub = self.cache.hub
        headers = hub.utils.build_hf_headers()
        if file.size is not None and _length(partial) > file.size:
            partial.unlink()
        attempt = 0
        while True:
            start = _length(partial)
            try:
                with partial.open("ab") as stream, _small_pieces(hub):
                    hub.file_download.http_get(
                        self._url(file),
                        stream,
                        resume_size=start,
                        headers=headers,
                        expected_size=file.size,
                        tqdm_class=Bar,
                    )
                    stream.flush()
                    os.fsync(stream.fileno())
                return
            except hub.errors.HfHubHTTPError:
                raise
            except hub.errors.HTTPError:
                attempt = 0 if _length(partial) > start else attempt + 1
                if attempt == _ATTEMPTS:
                    raise

    def _blob(self, file: HubFile) -> Path:
        return self.cache.folder / "blobs" / (file.sha256 or "none")

    def _url(self, file: HubFile) -> str:
        return str(self.cache.hub.hf_hub_url(self.cache.repo_id, file.name, revision=self.commit))

    def _corrupted(self, file: HubFile) -> MedmindError:
        return MedmindError(
            f"{file.name} of {self.cache.repo_id} came corrupted and was thrown away", "run the same command again"
        )


@contextmanager
def _small_pieces(hub: ModuleType) -> Iterator[None]:
    before = hub.constants.DOWNLOAD_CHUNK_SIZE
    hub.constants.DOWNLOAD_CHUNK_SIZE = min(before, _PIECE)
    try:
        yield
    finally:
        hub.constants.DOWNLOAD_CHUNK_SIZE = before


def _state(blob: Path) -> str:
    """What changes with a file's bytes: its length and its time."""
    stat = blob.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.medmind.incomplete")


def discard(path: Path) -> None:
    """Remove a file of a snapshot and the blob that it leads to."""
    target = path.resolve()
    path.unlink(missing_ok=True)
    target.unlink(missing_ok=True)
