"""A note in place of what is cut out of a text. Knows pairs of Markdown's signs, no doses."""

import re

NOTE = "[dose left out: no source here gives it; ask a doctor or pharmacist]"


def without(text: str, cuts: list[tuple[int, int]]) -> str:
    """A text with notes in place of its cuts; signs of Markdown stay in pairs, neighbouring notes become one.

    Args:
        text: of any length.
        cuts: where each begins and ends, in their order.
    """
    made: list[str] = []
    at = 0
    for start, end in (_with_marks(text, *cut) for cut in cuts):
        if start < at:  # a dose and how often it is taken share a word
            at = max(at, end)
            continue
        between = text[at:start]
        if made and re.fullmatch(r"[\s\-–—/~]*(?:to|or|and)?[\s\-–—/~]*", between):
            at = end
            continue
        made += [between, NOTE]
        at = end
    return "".join(made) + text[at:]


def _with_marks(text: str, start: int, end: int) -> tuple[int, int]:
    """A cut with the other one of a pair of Markdown's signs that it has one of."""
    mark = next((mark for mark in ("***", "**", "__", "*", "_", "`") if text[start:end].count(mark) % 2), "")
    if mark and text[max(0, start - len(mark)) : start] == mark:
        return start - len(mark), end
    if mark and text[end : end + len(mark)] == mark:
        return start, end + len(mark)
    return start, end
