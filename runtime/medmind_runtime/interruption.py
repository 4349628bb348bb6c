"""Ending a computation because somebody wishes it: the question that is asked and the exception that answers it.

Knows neither who wishes it nor what is computed; signals are `medmind.signals`' and `terminal.ctrl_c`'s.
"""

from collections.abc import Callable


class Interrupted(Exception):
    """A computation stopped because it was asked to."""


def unless(cancel: Callable[[], bool]) -> None:
    """Go on, unless somebody cancels.

    Raises:
        Interrupted: somebody does.
    """
    if cancel():
        raise Interrupted


def never() -> bool:
    """The `cancel` of a computation that nobody cancels."""
    return False
