"""Guesses at the next tokens from the text at hand, and whether guessing pays. Knows token ids and seconds, no model.

Prompt lookup decoding (A. Saxena, 2023; also llama.cpp's examples/lookup): what followed the same tokens before may
follow them again, as it does where an answer quotes a passage of its prompt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SIZES = (1, 2, 4, 8, 16)
"""Tokens of the endings that are looked up: the longer one is, the surer is what follows it."""
ROWS = (2, 4, 8)
"""Tokens evaluated together, a draft and the token before it."""
MOST_ROWS = ROWS[-1]
_MEMORY = 0.8
"""Of a duration, for the next one."""
_SURPRISE = 1.5
"""No duration counts for more than so many times what was expected: another program had the CPU meanwhile."""
_WINDOW = 0.97
"""Of what has been right, for the next guess."""
_FORGET = 256
"""Tokens after which what has not been tried again is not known any more: a busy moment, or another kind of text."""
_CREDIT, _MOST_CREDIT, _INTEREST = 2.0, 16.0, 0.005
_PRIOR = {1: 0.2, 2: 0.5, 4: 0.7, 8: 0.8, 16: 0.9}
"""How often a guess is right by the length of the ending it follows, until that is known: as if seen 4 times.

From answers of the embedded model over passages of MedQuAD, rounded down.
"""
_PRIOR_WEIGHT = 4.0


@dataclass(frozen=True)
class Match:
    """An earlier occurrence of the text's end.

    Attributes:
        size: tokens that are the same, one of `SIZES`; 0 for none.
        place: of the token that followed them.
    """

    size: int = 0
    place: int = 0


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
        for size in SIZES:
            if size <= place:
                self._after[tuple(self._tokens[-size:])] = place
        self._tokens.append(token)

    def match(self) -> Match:
        """The latest occurrence of the longest n-gram that ends the text."""
        for size in reversed(SIZES):
            place = self._after.get(tuple(self._tokens[-size:]))
            if place is not None:
                return Match(size, place)
        return Match()

    def draft(self, match: Match, most: int) -> list[int]:
        """At most `most` tokens that followed it."""
        return self._tokens[match.place : match.place + most] if match.size else []


class Pace:
    """How far to guess ahead, from what guesses have cost and how often they were right; good for many answers.

    As many tokens are evaluated together as promise most tokens in the time: with p the share of right guesses behind
    an ending of that length, k rows promise 1 + p + ... + p^(k-1) tokens for what k rows took before. A number of rows
    that has not been tried is taken to cost no more than the one below it.

    It cannot cost more than it saves: a draft is only made where, should all of it be wrong, what drafts have lost so
    far stays under two tokens' time and half a percent of all answers. That is exact as long as rows cost what they
    cost before, or for new numbers of them no more than one by one.

    Args:
        rows: numbers of tokens that may be evaluated together, the least first.
    """

    def __init__(self, rows: Sequence[int] = ROWS) -> None:
        self._rows = rows
        self._single = 0.0
        self._now = 0
        self._costs: dict[int, tuple[float, int]] = {}  # by rows; in single tokens, and when
        self._right: dict[int, tuple[float, float, int]] = {}  # by match; right ones, all, and when
        self._credit = _CREDIT

    def length(self, match: int, most: int) -> int:
        """Tokens to draft now.

        Args:
            match: tokens of the ending that occurred before.
            most: that may be drafted.

        Returns:
            0 where guessing does not promise to pay, and before the time of a single token is known; else one less than
            one of the numbers of rows.
        """
        if not match or not self._single:
            return 0
        right, seen = self._seen(match)
        share, cost = right / seen, 1.0
        best, promised = 1, 1.0
        for rows in self._rows:
            if rows > most + 1:
                break
            found = self._cost(rows)
            cost = found or cost
            promise = sum(share**step for step in range(rows)) / cost
            if promise > promised and (found or rows) - 1 <= self._credit:
                best, promised = rows, promise
            if not found:
                break
        return best - 1

    def single(self, seconds: float) -> None:
        """A token was evaluated alone."""
        self._single = _blend(self._single, seconds) if self._single else seconds
        self._earn(0.0, tokens=1)

    def batch(self, seconds: float, *, match: int, drafted: int, accepted: int) -> None:
        """A token and the draft behind it were evaluated together, and so many of the draft were right."""
        rows = drafted + 1
        cost = min(seconds / self._single, rows)  # what costs more than one by one came into a busy moment
        before = self._cost(rows)
        self._costs[rows] = _blend(before, cost) if before else cost, self._now
        guesses = min(accepted + 1, drafted)  # behind the first wrong one nothing is known
        right, seen = self._seen(match)
        kept = _WINDOW**guesses
        self._right[match] = right * kept + accepted, seen * kept + guesses, self._now
        self._earn(accepted + 1 - cost, tokens=accepted + 1)

    def _cost(self, rows: int) -> float:
        """In single tokens; 0 when not known."""
        cost, when = self._costs.get(rows, (0.0, 0))
        return cost if self._now - when <= _FORGET else 0.0

    def _seen(self, match: int) -> tuple[float, float]:
        """Right guesses and all guesses behind such a match."""
        right, seen, when = self._right.get(match, (0.0, 0.0, 0))
        if not seen or self._now - when > _FORGET:
            return _PRIOR_WEIGHT * _PRIOR[match], _PRIOR_WEIGHT
        return right, seen

    def _earn(self, saved: float, *, tokens: int) -> None:
        self._now += tokens
        self._credit = min(self._credit + saved + _INTEREST * tokens, _MOST_CREDIT)


def _blend(before: float, now: float) -> float:
    return _MEMORY * before + (1 - _MEMORY) * min(now, _SURPRISE * before)
