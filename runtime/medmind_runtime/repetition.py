"""Notices that an answer goes round in a circle, as small models do when they always take the likeliest word.

Knows token ids only. It ends answers and never changes one: a penalty on repeated words, the usual remedy, pushes a
model off the names of drugs and diseases, which have to be repeated.
"""

from collections import deque

LONGEST_PERIOD = 128
"""Tokens of the longest circle that is noticed."""
_ROUNDS = 3
_LEAST = 48


class Circle:
    """The end of a sequence of tokens, and for how long it has repeated itself."""

    def __init__(self) -> None:
        self._length = 0
        self._places: dict[int, deque[int]] = {}  # of each token, the earliest first
        self._runs: dict[int, int] = {}

    def add(self, token: int) -> bool:
        """Take the next token; True when the last 48 or more are three or more rounds of the same tokens."""
        place, self._length = self._length, self._length + 1
        earlier = self._places.setdefault(token, deque())
        while earlier and place - earlier[0] > LONGEST_PERIOD:
            earlier.popleft()
        self._runs = {place - other: self._runs.get(place - other, 0) + 1 for other in earlier}
        earlier.append(place)
        # a run of n equal pairs at distance p spans n + p tokens
        return any(run + period >= max(_ROUNDS * period, _LEAST) for period, run in self._runs.items())
