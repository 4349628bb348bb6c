"""Notices that an answer goes round in a circle, as small models do when they always take the likeliest word.

Knows token ids only. It ends answers and never changes one: a penalty on repeated words, the usual remedy, pushes a
model off the names of drugs and diseases, which have to be repeated.
"""

LONGEST_PERIOD = 128
"""Tokens of the longest circle that is noticed."""
_ROUNDS = 3
_LEAST = 48


class Circle:
    """The end of a sequence of tokens, and for how long it has repeated itself."""

    def __init__(self) -> None:
        self._recent: list[int] = []  # the latest first
        self._runs = [0] * LONGEST_PERIOD

    def add(self, token: int) -> bool:
        """Take the next token; True when the last 48 or more are three or more rounds of the same tokens."""
        recent = self._recent
        self._runs = [
            run + 1 if other == token else 0 for run, other in zip(self._runs, recent, strict=False)
        ] + self._runs[len(recent) :]
        recent.insert(0, token)
        del recent[LONGEST_PERIOD:]
        # a run of n equal pairs at distance p spans n + p tokens
        return any(run + period >= max(_ROUNDS * period, _LEAST) for period, run in enumerate(self._runs, 1) if run)
