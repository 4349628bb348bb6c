"""Files of what was said: whole or not at all, whatever stands in their place, also when disk or process ends."""

import errno
import fcntl
import os
import resource
import signal
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
from forked import Forked

from medmind.errors import MedmindError
from medmind_runtime import private_file, saved
from medmind_runtime.engine import state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="rights, FIFOs and limits of Unix")
WHOLE = b"w" * 100_000


def forked(function: Callable[[], object], folder: Path) -> str:
    """What a process told that called `function`; a FIFO that is waited for ends it by time."""

    def told() -> None:
        try:
            function()
        except MedmindError as error:
            print(error)

    done = Forked(told, cwd=folder).wait(timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def narrow() -> None:
    """From here on no file of this process grows beyond 1,000 bytes: as on a full disk, a write ends in mid-way."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    if private_file._unnamed(tmp_path) is None:
        pytest.skip("this file system has no files without a name")
    kept = tmp_path / "talk.json"
    kept.write_bytes(b"before")

    def killed() -> None:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        private_file.write(kept, WHOLE)

    assert Forked(killed, cwd=tmp_path).wait().returncode == -signal.SIGKILL
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("talk.json", b"before")]


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool) -> None:
    if not unnamed:
        monkeypatch.setattr(private_file, "_unnamed", lambda _: None)
    kept = tmp_path / "talk.json"
    private_file.write(kept, b"before")
    assert "talk.json cannot be written: File too large" in forked(
        lambda: (narrow(), private_file.write(kept, WHOLE)), tmp_path
    )
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("talk.json", b"before")]
    private_file.write(kept, WHOLE)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("talk.json", WHOLE)]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_what_is_added_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    kept = tmp_path / "typed"
    private_file.append(kept, b"one\n")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "typed cannot be written" in forked(lambda: (narrow(), private_file.append(kept, WHOLE)), tmp_path)
    assert kept.read_bytes() == b"one\n"
    private_file.append(kept, b"two\n")
    assert kept.read_bytes() == b"one\ntwo\n"


def test_what_another_process_adds_to_a_file_meanwhile_stays(tmp_path: Path) -> None:
    kept = tmp_path / "typed"
    kept.write_bytes(b"one\n")

    class Overtaken(FileIO):
        """Another process adds to the file right after it was written."""

        def write(self, content: object) -> int:
            written = super().write(content)  # type: ignore[arg-type]
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            with kept.open("ab") as other:
                other.write(b"two\n")
            return written

    def overtaken() -> None:
        narrow()
        os.fdopen = lambda descriptor, mode, buffering: Overtaken(descriptor, mode)
        private_file.append(kept, WHOLE)

    assert "typed cannot be written: No space left on device" in forked(overtaken, tmp_path)
    assert kept.read_bytes() == b"one\n" + WHOLE[:996] + b"two\n"


def test_two_that_add_to_a_file_wait_for_one_another(tmp_path: Path) -> None:
    """One sees that a part is the last of the file, and the other adds to it before that part is taken back."""
    kept = tmp_path / "typed"
    kept.write_bytes(b"one\n")
    at_the_gap, go_in = os.pipe()
    other_is, tell = os.pipe()

    def first() -> None:
        narrow()
        size = os.fstat

        def slowly(descriptor: int) -> os.stat_result:
            found = size(descriptor)
            os.write(go_in, b"x")
            os.read(other_is, 1)
            return found

        os.fstat = slowly
        private_file.append(kept, WHOLE)

    def second() -> None:
        os.read(at_the_gap, 1)
        flock = fcntl.flock

        def seen(descriptor: int, how: int) -> None:
            try:
                flock(descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                os.write(tell, b"waits")
                flock(descriptor, how)

        fcntl.flock = seen
        private_file.append(kept, b"two\n")
        os.write(tell, b"added")

    both = [Forked(one, cwd=tmp_path) for one in (first, second)]
    done = [one.wait(timeout=20) for one in both]
    for pipe in (at_the_gap, go_in, other_is, tell):
        os.close(pipe)
    assert b"typed cannot be written" in done[0].stderr
    assert (done[1].returncode, kept.read_bytes()) == (0, b"one\ntwo\n")


def test_where_a_file_without_a_name_gets_none_it_is_written_under_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    kept = tmp_path / "talk.json"
    private_file.write(kept, WHOLE)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("talk.json", WHOLE)]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool) -> None:
    if not unnamed:
        monkeypatch.setattr(private_file, "_unnamed", lambda _: None)
    kept = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    private_file.write(kept, WHOLE)
    assert kept.read_bytes() == WHOLE


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device", "link to a device"])
def test_what_is_no_file_is_neither_waited_for_nor_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "FIFO":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "device":
        place = Path("/dev/null")
    else:
        place.symlink_to("/dev/null")
    before = place.lstat()

    def tried() -> None:
        for refused in (
            lambda: private_file.write(place, b"") if kind != "device" else private_file.demand_regular(place),
            lambda: saved.read(place),
            lambda: state.read(place, "key"),
        ):
            with pytest.raises(MedmindError, match="is no regular file"):
                refused()
        if kind != "device":
            with pytest.raises(MedmindError, match=r"is no regular file|cannot be written"):
                private_file.ensure(place)

    assert forked(tried, tmp_path) == ""
    assert (place.lstat().st_ino, place.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_link_is_not_followed_by_what_is_added(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / "typed").symlink_to("other")
    with pytest.raises(MedmindError, match="cannot be written"):
        private_file.append(tmp_path / "typed", b"more")
    assert (tmp_path / "other").read_bytes() == b"kept"
