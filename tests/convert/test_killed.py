"""SIGKILL at any moment: under the final name lies nothing or the whole file, and another start goes on from there."""

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from killed import Ended, Forks, forks

from medmind_convert.one_pass import AHEAD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open and memfd_create are Linux's")
THREADS = 2
QUICK = (("q4_0", "q8_0"), 2)
LONG = (("iq4_nl", "q8_0"), 4)
"""Types, and layers of the model: quantizing takes some tenths of a second, or most of the time."""


class Killed:
    """Attempts at one conversion, each looked at after its end.

    Attributes:
        seconds: that a whole one lasts.
        events: changes to files that a whole one makes.
        finished: attempts that ended by themselves.
        resumed: attempts that found finished tensors.
    """

    def __init__(self, forks: Forks, run: Path, types: Sequence[str]) -> None:
        self._forks = forks
        self._command = ("gguf", *types, "runs/trial", "--threads", THREADS, "--no-cards")
        self._files = [f"trial.{name}.gguf" for name in types]
        self._run = run
        whole = forks.attempt(*self._command)
        assert whole.code == 0, whole.errors
        self.seconds, self.events = whole.seconds, whole.events
        self._expected = {file: (run / file).read_bytes() for file in self._files}
        self.finished = self.resumed = 0
        self._clean()

    def attempt(self, *, seconds: float | None = None, event: int | None = None) -> Ended:
        """Start once more, killed or not, and hold what is there against what must be."""
        noted = self._noted()
        ended = self._forks.attempt(*self._command, seconds=seconds, event=event)
        assert ended.code in (0, -9), ended.errors
        for file, expected in self._expected.items():
            found = self._run / file
            assert not found.exists() or found.read_bytes() == expected, file
        assert not noted & set(ended.begun), "a finished tensor was made again"
        left = self._noted()
        done = ended.code == 0 or all((self._run / file).exists() for file in self._files)
        lost = set(ended.begun) - left
        assert done or len(lost) <= AHEAD * THREADS + 1, "more than what the threads had in hand was lost"
        self.resumed += bool(noted)
        if ended.code == 0:
            self.finished += 1
            assert all((self._run / file).exists() for file in self._files)
            assert not list(self._run.glob(".*.gguf.*"))
            self._clean()
        return ended

    def _noted(self) -> set[str]:
        """Tensors that are finished in every file."""
        found = []
        for file in self._files:
            journal = self._run / f".{file}.journal"
            lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
            found.append({json.loads(line).get("tensor") for line in lines} - {None})
        return found[0] & found[1]

    def _clean(self) -> None:
        for path in [*self._run.glob("trial.*"), *self._run.glob(".*")]:
            path.unlink()


@pytest.fixture
def killed(
    request: pytest.FixtureRequest, make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Killed]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    types, layers = request.param
    run = make_run(hidden=256, ffn=512, layers=layers)
    with forks(tmp_path) as ready:
        yield Killed(ready, run, types)


@pytest.mark.parametrize("killed", [QUICK], indirect=True)
def test_four_kills_end_in_the_same_bytes(killed: Killed):
    for part in (0.3, 0.6, 0.75):
        killed.attempt(seconds=killed.seconds * part)
    assert killed.attempt().code == 0
    assert killed.attempt(event=killed.events - 1).code == -9  # one file has lost its journal already, and one has not
    assert killed.attempt().code == 0


@pytest.mark.slow
@pytest.mark.parametrize("killed", [LONG], indirect=True)
def test_a_hundred_kills_at_random_moments(killed: Killed):
    moments = random.Random(8)
    kills = 0
    while kills < 100:
        kills += killed.attempt(seconds=moments.uniform(0, killed.seconds)).code == -9
    assert killed.attempt().code == 0
    print(f"{kills} kills in {killed.seconds:.2f} s, {killed.resumed} resumed, {killed.finished} finished")
    assert killed.resumed > 20


@pytest.mark.slow
@pytest.mark.parametrize("killed", [QUICK], indirect=True)
def test_a_kill_before_every_single_change_to_a_file(killed: Killed):
    """Names, removals and everything that is opened to be written, in a conversion that starts afresh each time."""
    assert killed.events >= 8  # journals, files, names and removals of two
    for event in range(1, killed.events + 1):
        assert killed.attempt(event=event).code == -9, event
        assert killed.attempt().code == 0


@pytest.mark.slow
def test_a_merge_killed_before_every_change_is_there_whole_or_not_at_all(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also one that replaces another: then the old one is there, or nothing for the moment between two renames."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = make_run()
    out = run / "merged"

    def there() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else {}

    with forks(tmp_path) as ready:
        command = ["merge", "runs/trial", "--max-shard-size", "100k", "--threads", THREADS, "--merge-onto"]
        whole = {}
        for onto in ("base", "nf4"):
            made = ready.attempt(*command, onto, "--force")
            assert made.code == 0, made.errors
            whole[onto] = there()
        assert whole["base"].keys() == whole["nf4"].keys() and len(whole["nf4"]) > 6
        for event in range(1, made.events + 1):
            now, other = ("base", "nf4") if event % 2 else ("nf4", "base")
            assert ready.attempt(*command, now, "--force", event=event).code == -9
            assert there() in ({}, whole[now], whole[other]), event
            again = ready.attempt(*command, now, "--force")
            assert again.code == 0, again.errors
            assert there() == whole[now]
            assert not list(run.glob(".*"))
