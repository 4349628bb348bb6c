"""Ending a computation because somebody wishes it: the question that is asked and the exception that answers it."""


class Interrupted(Exception):
    """A computation stopped because it was asked to."""


def never() -> bool:
    """The `cancel` of a computation that nobody cancels."""
    return False
