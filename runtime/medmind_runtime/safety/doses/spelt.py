"""Numbers and units in pieces: `8 h u n d r e d mg`, `n-i-n-e t a b l e t s`, `hun-dred milli grams`, as one word each.

Knows pieces of words that are numbers or units. Knows no doses.
"""

from collections.abc import Sequence

from medmind_runtime.safety.doses.reading import Token
from medmind_runtime.safety.doses.terms import terms

_SIGNS = frozenset("-./|·,")
_SHORTEST, _MOST = 3, 16
"""Letters of a word that is put together; `m g` is a unit as it stands. Pieces of the longest."""


def joined(row: Sequence[Token]) -> tuple[list[Token], list[int]]:
    """The tokens with such words put together, and the place that each of the old ones has now."""
    made: list[Token] = []
    places: list[int] = []
    at, begins = 0, terms().first_pieces
    if begins.isdisjoint([token.text for token in row]):
        return list(row), list(range(len(row)))
    while at < len(row):
        end = _end(row, at) if row[at].text in begins else 0
        places += [len(made)] * max(1, end - at)
        made.append(_whole(row[at:end]) if end else row[at])
        at = max(at + 1, end)
    return made, places


def _whole(row: Sequence[Token]) -> Token:
    """One token of several."""
    first, word = row[0], "".join(token.text for token in row if token.is_word)
    return Token(word, first.start, row[-1].end, None, word, first.glued)


def _end(row: Sequence[Token], at: int) -> int:
    """The end of a word in pieces; of several the longest, but for one that leaves letters over: `e i g h t h u n`."""
    ends = _ends(row, at)
    for end in reversed(ends):
        if end == len(row) or len(row[end].text) > 1 or _ends(row, end):
            return end
    return ends[-1] if ends else 0


def _ends(row: Sequence[Token], at: int) -> list[int]:
    """Where numbers and units end of which all pieces, with nothing or the same sign between, stand from here on."""
    known, word = terms(), row[at].text
    if word in known.spellable or not row[at].is_word:
        return []
    sign = row[at + 1].written if at + 1 < len(row) and row[at + 1].written in _SIGNS else ""
    step, found = 1 + bool(sign), []
    for place in range(at + step, min(len(row), at + _MOST * step), step):
        if (sign and row[place - 1].written != sign) or word not in known.word_begins:
            break
        piece = row[place].text
        if len(piece) > 1 and piece in known.spellable:  # `wine glass`
            break
        word += piece
        if word in known.spellable and len(word) >= _SHORTEST:
            found.append(place + 1)
    return found
