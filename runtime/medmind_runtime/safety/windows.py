"""Where a long text is cut to be judged: windows of whole sentences that overlap, of the length of a long question.

What a text tells as a whole says little of a cry in the middle of it. Knows words, no rule and no weight.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from medmind_runtime.safety.words import SENTENCE, Word

WHOLE = 160
"""Words and marks of a text that is judged as it is. Hardly any text that the classifier was fitted to has more, and
those joined of several were given no more words than this."""
_WINDOW, _OVERLAP = 96, 32
_SENTENCE, _PIECE, _STEP = 64, 32, 16
"""Words of a sentence that is never cut; of its pieces, otherwise; and from one to the next. Text without full stops
has such sentences."""
_TRIES = 0.4
"""Log-odds asked for on top of a bound for each e-fold of windows: of many, some lean too far by chance."""
APART = 3.0
"""Log-odds asked for on top of a bound of a sentence that is judged without those around it."""


def ends(text: str, longest: int) -> str:
    """What is read of a text: of one of more than `longest` characters half of them at either end."""
    return text if len(text) <= longest else f"{text[: longest // 2]}\n{text[-(longest // 2) :]}"


def windows(words: Sequence[Word]) -> list[range]:
    """The places of the words in each window; a short text is one.

    Every sentence of at most 64 words lies whole in a window, a short one with what stands around it.
    """
    if len(words) <= WHOLE:
        return [range(len(words))]
    whole = list(sentences(words))
    found: list[range] = []
    first = last = 0
    while last < len(whole):
        last = first + 1
        while last < len(whole) and whole[last].stop - whole[first].start <= _WINDOW:
            last += 1
        end = whole[last - 1].stop
        found.append(range(whole[first].start, end))
        again = last
        while again - 1 > first and end - whole[again - 1].start <= _OVERLAP:
            again -= 1
        first = again
    return found


def demand(count: int) -> float:
    """What one of so many windows must tell more than a text that stands alone, in log-odds."""
    return _TRIES * math.log(count)


def sentences(words: Sequence[Word]) -> Iterator[range]:
    """The places of the words in each sentence; one that is too long is cut into pieces that overlap."""
    stops = [place + 1 for place, word in enumerate(words) if word.text == SENTENCE]
    for first, last in pairwise(dict.fromkeys([0, *stops, len(words)])):
        yield from (
            [range(first, last)]
            if last - first <= _SENTENCE
            else [range(at, min(last, at + _PIECE)) for at in range(first, last - _STEP, _STEP)]
        )
