"""Something slow that is begun now and waited for only when it is needed: a model that loads behind the prompt."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from medmind.signals import held
from medmind_runtime.interruption import Interrupted, never

T = TypeVar("T")
_GLANCE = 0.02
"""Seconds between two looks at `cancel` while waiting."""


class Background(Generic[T]):
    """One call of `make` in a thread of its own.

    Args:
        name: of the thread: what is done in it.
        make: gets a function to be asked often: True means that nobody waits any more.
        listen: called in that thread when the result, or the error, is there.
    """

    def __init__(
        self, name: str, make: Callable[[Callable[[], bool]], T], listen: Callable[[], None] = lambda: None
    ) -> None:
        self._make = make
        self._listen = listen
        self._done = False
        self._ends = threading.Lock()
        self._ends.acquire()
        self._unwanted = False
        self._error: BaseException | None = None
        self._made: list[T] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._beginning = threading.Lock()

    def start(self) -> None:
        """Begin; from any thread, and harmless when begun already. What was given up does not begin any more."""
        with self._beginning:
            if not (self._thread.ident or self._unwanted):
                with held():  # a thread that is broken off while it begins never runs and never ends
                    self._thread.start()

    def _run(self) -> None:
        try:
            self._made.append(self._make(lambda: self._unwanted))
        except BaseException as error:
            self._error = error
        self._done = True
        self._ends.release()
        self._listen()

    @property
    def ready(self) -> bool:
        """Whether there is a result."""
        return bool(self._made)

    @property
    def error(self) -> BaseException | None:
        """What went wrong, if anything has so far."""
        return self._error

    def wait(self, cancel: Callable[[], bool] = never) -> T:
        """The result.

        Raises:
            Interrupted: cancelled, and the work goes on; or it was given up before it began.
            BaseException: whatever `make` raised.
        """
        self.start()
        while not self._done:
            if cancel() or (self._unwanted and not self._thread.ident):
                raise Interrupted
            self._glance()
        if self._error is not None:
            raise self._error
        return self._made[0]

    def _glance(self) -> None:
        """Wait a moment for the end, by a bare lock: that of an Event may stay locked for ever behind Ctrl-C."""
        if self._ends.acquire(timeout=_GLANCE):
            self._ends.release()

    def give_up(self) -> None:
        """Nobody waits any more: tell the work so, and leave it to end by itself."""
        with self._beginning:
            self._unwanted = True

    def close(self) -> T | None:
        """Give the work up, wait for its end, and return what it made nevertheless."""
        self.give_up()
        if self._thread.ident:
            self._thread.join()
        return self._made[0] if self._made else None
