"""Guesses at the next tokens from the text at hand, and whether guessing pays. Knows token ids and seconds, no model.

Prompt lookup decoding (A. Saxena, 2023; also llama.cpp's examples/lookup): what followed the same tokens before may
follow them again, as it does where an answer quotes a passage of its prompt.
"""

from collections.abc import Iterable

_LONGEST, _SHORTEST = 4, 2
ROWS = (2, 4, 8)
"""Tokens evaluated together, a draft and the token before it."""
MOST_ROWS = ROWS[-1]
_FIRST_REST, _LONGEST_REST = 16, 256
_MEMORY = 0.8


class Lookup:
    """The tokens so far, and where each of their n-grams occurred last."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Take the next token."""
        place = len(self._tokens)
        for size in range(_SHORTEST, min(_LONGEST, place) + 1):
            self._after[tuple(self._tokens[-size:])] = place
        self._tokens.append(token)

    def draft(self, most: int) -> list[int]:
        """At most `most` tokens that followed the latest occurrence of the longest n-gram that ends the text."""
        for size in range(min(_LONGEST, len(self._tokens)), _SHORTEST - 1, -1):
            place = self._after.get(tuple(self._tokens[-size:]))
            if place is not None:
                return self._tokens[place : place + most]
        return []


class Pace:
    """How far to guess ahead, from what guesses have saved and cost so far.

    A balance in tokens' worth of time decides: once drafts have lost one token's time, drafting rests, for twice as
    long each time in a row.
    """

    def __init__(self) -> None:
        self._single = 0.0
        self._balance = 0.0
        self._step = 1
        self._resting = 0
        self._rest = _FIRST_REST

    def length(self) -> int:
        """Tokens to draft now; 0 while resting, and before the time of a single token is known."""
        if self._resting or not self._single:
            return 0
        return ROWS[self._step] - 1

    def single(self, seconds: float) -> None:
        """A token was evaluated alone."""
        self._single = _MEMORY * self._single + (1 - _MEMORY) * seconds if self._single else seconds
        self._resting = max(0, self._resting - 1)

    def batch(self, seconds: float, *, drafted: int, accepted: int) -> None:
        """A token and the draft behind it were evaluated together, and so many of the draft were right."""
        gain = (accepted + 1) - seconds / self._single
        self._balance = _MEMORY * self._balance + gain
        if accepted == drafted:
            self._step = min(self._step + 1, len(ROWS) - 1)
        elif 2 * accepted < drafted:
            self._step = max(self._step - 1, 0)
        if self._balance < -1:
            self._resting, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST)
            self._balance, self._step = 0.0, 0
        elif gain > 0:
            self._rest = _FIRST_REST
