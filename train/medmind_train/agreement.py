"""How the processes of a run stay of one mind: what fails in one fails in all, and some things only the first does.

Knows no training. Alone, everything here is the plain call.
"""

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from medmind.errors import MedmindError, one_line
from medmind_train import distributed
from medmind_train.distributed import PeerLost
from medmind_train.memory_full import is_memory_full

T = TypeVar("T")
_PATIENCE = 0.05
"""Seconds between two looks for whether the first process is done; a signal is heard in between."""


class Meeting:
    """Where processes can leave word without waiting for each other: a `torch.distributed` store.

    Attributes:
        agreed: the error that all processes have raised together, if they have.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._waits = 0
        self.agreed: BaseException | None = None

    def first_to_say(self) -> bool:
        """Whether nobody has said yet why the run ends."""
        return bool(self._store.add("said", 1) == 1)

    def leave(self, limit: float) -> None:
        """Let the first process go first, for so many seconds at most: who ends first has the others killed."""
        if distributed.is_first():
            self._store.set("ended", "1")
            return
        end = time.monotonic() + limit
        while not self._store.check(["ended"]) and time.monotonic() < end:
            time.sleep(_PATIENCE)

    def next_wait(self) -> str:
        """A name for what the first process does next while the others wait; the same in all of them."""
        self._waits += 1
        return f"wait/{self._waits}"

    def done(self, name: str) -> None:
        """Tell those who `wait`."""
        self._store.set(name, "1")

    def wait(self, name: str) -> None:
        """Wait until the first process is done, however long it takes."""
        while not self._store.check([name]):
            time.sleep(_PATIENCE)


_meeting: list[Meeting] = []


@contextmanager
def meeting(store: Any) -> Iterator[Meeting]:
    """Use `store` during the block."""
    _meeting.append(Meeting(store))
    try:
        yield _meeting[-1]
    finally:
        _meeting.pop()


@contextmanager
def together() -> Iterator[None]:
    """Run a block in every process, and raise in all what one of them raises: the error of the lowest rank.

    Nothing in the block may wait for another process.
    """
    if distributed.world()[1] == 1:
        yield
        return
    error: BaseException | None = None
    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as raised:  # an interrupt as well: the others would wait for this process for ever
        error = raised
    agree(error)


def agree(error: BaseException | None) -> None:
    """Raise where any process gives an error; every process has to call it."""
    totals(error)


def totals(error: BaseException | None, *values: float) -> tuple[float, ...]:
    """`distributed.totals`, and `agree` in the same message."""
    rank, size = distributed.world()
    if size == 1:
        if error is not None:
            raise error
        return values
    try:
        failed, *sums = distributed.totals(error is not None, *values)
        if not failed:
            return tuple(sums)
        errors = distributed.gathered(_packed(error))
    except PeerLost:
        if error is not None:
            raise error from None
        raise
    who = next(at for at, one in enumerate(errors) if one is not None)
    agreed = error if who == rank and error is not None else _unpacked(who, errors[who])
    if _meeting:
        _meeting[-1].agreed = agreed
    raise agreed


def after_first(work: Callable[[], T]) -> T:
    """Do `work` in the first process, then in the others, which find what it has left in a cache."""
    if distributed.world()[1] == 1:
        return work()
    value = _first(work)
    with together():
        if not distributed.is_first():
            value = work()
    return cast(T, value)


def by_first(work: Callable[[], T]) -> T:
    """Do `work` in the first process only; all get what it gives."""
    if distributed.world()[1] == 1:
        return work()
    return cast(T, distributed.of_first(_first(work)))


def by_all(work: Callable[[], T]) -> T:
    """Do `work` in every process; for what they can only do side by side."""
    return work()


def _first(work: Callable[[], T]) -> T | None:
    """What `work` gives in the first process; None in the others, which wait for it."""
    value = None
    met = _meeting[-1]
    name = met.next_wait()
    if not distributed.is_first():
        met.wait(name)
    with together():
        if distributed.is_first():
            try:
                value = work()
            finally:
                met.done(name)
    return value


def same(value: str, what: str, hint: str) -> None:
    """Raise in all processes where they do not have the same `value`.

    Raises:
        MedmindError: `what` they differ in, and the first that differs from the first process.
    """
    values = distributed.gathered(value)
    other = next((rank for rank, one in enumerate(values) if one != values[0]), None)
    if other is not None:
        agree(MedmindError(f"the processes differ in {what}: process {other} has another than process 0", hint))


def is_agreed(error: BaseException) -> bool:
    """Whether all processes have raised `error`, or what led to it."""
    agreed = _meeting[-1].agreed if _meeting else None
    seen: BaseException | None = error
    while seen is not None:
        if seen is agreed:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _packed(error: BaseException | None) -> tuple[bytes | None, str] | None:
    """An error as it can be sent: itself where it survives that, and what it says."""
    if error is None:
        return None
    said = one_line(f"{type(error).__name__}: {error}")
    try:
        body = pickle.dumps(error)
        pickle.loads(body)  # noqa: S301 - made on the line above
    except Exception:
        return None, said
    return body, said


def _unpacked(rank: int, packed: tuple[bytes | None, str] | None) -> BaseException:
    assert packed is not None
    body, said = packed
    found: Any = pickle.loads(body) if body is not None else None  # noqa: S301 - from a process of this very run
    if isinstance(found, (MedmindError, OSError, MemoryError, KeyboardInterrupt, SystemExit)):
        return found
    if isinstance(found, BaseException) and (type(found).__module__.startswith("medmind") or is_memory_full(found)):
        return found
    return MedmindError(f"process {rank} has failed: {said}", "its own lines say where")
