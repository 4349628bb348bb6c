"""Guesses at the next tokens from the text at hand, and whether guessing pays. Knows token ids and seconds, no model.

Prompt lookup decoding (A. Saxena, 2023; also llama.cpp's examples/lookup): what followed the same tokens before may
follow them again, as it does where an answer quotes a passage of its prompt, or goes on as a source does that is not in
it (REST: Z. He and others, 2023).
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from medmind_runtime.prompt import common

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
_PRIOR_WEIGHT = 4.0


class Kind(NamedTuple):
    """What tells how sure a guess is.

    Attributes:
        size: tokens of the ending that occurred before, one of `SIZES`.
        said: whether it did in the answer itself, not in what the answer was given.
        agreed: whether what followed the ending twice is the same here; None where it occurred once, or where the two
            have parted already.
    """

    size: int
    said: bool
    agreed: bool | None


_PRIOR = {
    Kind(size, said, agreed): share
    for size, *shares in (
        (1, 0.25, 0.5, 0.1, 0.5, 0.55, 0.25),
        (2, 0.45, 0.8, 0.1, 0.75, 0.85, 0.5),
        (4, 0.75, 0.9, 0.2, 0.85, 0.9, 0.5),
        (8, 0.9, 0.9, 0.2, 0.9, 0.95, 0.6),
        (16, 0.95, 0.95, 0.4, 0.95, 0.95, 0.7),
    )
    for (said, agreed), share in zip(itertools.product((False, True), (None, True, False)), shares, strict=True)
}
"""How often a guess is right, until that is known: as if seen 4 times.

From answers of the embedded model over passages of MedQuAD, rounded down.
"""


class Lookup:
    """The tokens so far, and where each of their n-grams occurred the last two times.

    To take what is given costs some microseconds a token, once an answer; `Pace` does not count that.

    Args:
        given: what the answer may repeat, the likeliest last.
    """

    def __init__(self, given: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], tuple[int, int | None]] = {}
        for token in given:
            self._append(token)
        self._given = len(self._tokens)

    def add(self, token: int) -> None:
        """Take the next token of the answer."""
        self._append(token)

    def draft(self, most: int) -> tuple[list[int], list[Kind]]:
        """At most `most` tokens that followed the latest occurrence of the longest n-gram that ends the text."""
        for size in reversed(SIZES):
            if found := self._after.get(tuple(self._tokens[-size:])):
                place, before = found
                tokens = self._tokens[place : place + most]
                same = common(tokens, self._tokens[before : before + most]) if before is not None else -1
                said = place >= self._given
                return tokens, [Kind(size, said, None if at > same else at < same) for at in range(len(tokens))]
        return [], []

    def _append(self, token: int) -> None:
        place = len(self._tokens)
        for size in SIZES:
            if size <= place:
                ending = tuple(self._tokens[-size:])
                self._after[ending] = place, self._after.get(ending, (None,))[0]
        self._tokens.append(token)


class Pace:
    """How far to guess ahead, from what guesses have cost and how often they were right; good for many answers.

    As many tokens are evaluated together as promise most tokens in the time: with p, q, ... the shares of right guesses
    of the kinds of a draft's tokens, k rows promise 1 + p + pq + ... tokens, of k terms, for what k rows took before. A
    number of rows that has not been tried is taken to cost no more than the one below it.

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
        self._right: dict[Kind, tuple[float, float, int]] = {}  # right ones, all, and when
        self._credit = _CREDIT

    def length(self, kinds: Sequence[Kind]) -> int:
        """Tokens to draft now.

        Args:
            kinds: of those that may be.

        Returns:
            0 where guessing does not promise to pay, and before the time of a single token is known; else one less than
            one of the numbers of rows.
        """
        if not self._single:
            return 0
        certain, tokens, cost = [1.0], 0.0, 1.0
        for kind in kinds:
            right, seen = self._seen(kind)
            certain.append(certain[-1] * right / seen)
        best, promised = 1, 1.0
        for rows in self._rows:
            if rows > len(certain):
                break
            found = self._cost(rows)
            cost = found or cost
            tokens = sum(certain[:rows])
            if tokens / cost > promised and (found or rows) - 1 <= self._credit:
                best, promised = rows, tokens / cost
            if not found:
                break
        return best - 1

    def single(self, seconds: float) -> None:
        """A token was evaluated alone."""
        self._single = _blend(self._single, seconds) if self._single else seconds
        self._earn(0.0, tokens=1)

    def batch(self, seconds: float, kinds: Sequence[Kind], accepted: int) -> None:
        """A token and the draft behind it, of such kinds, were evaluated together; so many of the draft were right."""
        rows = len(kinds) + 1
        cost = min(seconds / self._single, rows)  # what costs more than one by one came into a busy moment
        before = self._cost(rows)
        self._costs[rows] = _blend(before, cost) if before else cost, self._now
        for place, kind in enumerate(kinds[: accepted + 1]):  # behind the first wrong one nothing is known
            right, seen = self._seen(kind)
            self._right[kind] = right * _WINDOW + (place < accepted), seen * _WINDOW + 1, self._now
        self._earn(accepted + 1 - cost, tokens=accepted + 1)

    def _cost(self, rows: int) -> float:
        """In single tokens; 0 when not known."""
        cost, when = self._costs.get(rows, (0.0, 0))
        return cost if self._now - when <= _FORGET else 0.0

    def _seen(self, kind: Kind) -> tuple[float, float]:
        """Right guesses and all guesses of a kind."""
        right, seen, when = self._right.get(kind, (0.0, 0.0, 0))
        if not seen or self._now - when > _FORGET:
            return _PRIOR_WEIGHT * _PRIOR[kind], _PRIOR_WEIGHT
        return right, seen

    def _earn(self, saved: float, *, tokens: int) -> None:
        self._now += tokens
        self._credit = min(self._credit + saved + _INTEREST * tokens, _MOST_CREDIT)


def _blend(before: float, now: float) -> float:
    return _MEMORY * before + (1 - _MEMORY) * min(now, _SURPRISE * before)
