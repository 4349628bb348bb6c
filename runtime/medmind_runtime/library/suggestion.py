"""Subjects that a question may have meant whose words no passage holds: a slip of the keys ("glaucuma").

Proposes names and answers nothing: two diseases may differ by a letter. Knows the tables of `index`. What is so near
that it is taken for the word itself is `safety.spelling`'s business, strict and quick over one vocabulary; here
somebody chooses among any library's names, once nothing was found: the standard library's likeness will do.
"""

import re
import sqlite3
from collections.abc import Iterator

_LETTERS = 5
"""Shorter words are like too many others."""
_ALIKE = 0.8
"""`difflib`'s ratio of what two words share: one slip in five letters, two in ten."""
_EACH = 3
"""Words that one is taken for, at most."""


def corrected(base: sqlite3.Connection, question: str, subject: tuple[str, ...]) -> Iterator[str]:
    """The question with its unknown words replaced by words of the names that are spelt alike, the likest first.

    Args:
        base: a library.
        question: as it was asked.
        subject: its words that carry meaning, in lower case.
    """
    import difflib

    unknown = [word for word in subject if len(word) >= _LETTERS and not _stands(base, word)]
    if not unknown:
        return
    names = base.execute("SELECT name FROM focus").fetchall()
    known = sorted({word for (name,) in names for word in re.findall(r"\w+", name.lower()) if len(word) >= _LETTERS})
    alike = {word: difflib.get_close_matches(word, known, _EACH, _ALIKE) for word in unknown}
    for place in range(max(map(len, alike.values()))):
        text = question.lower()
        for word, near in alike.items():
            if near:
                text = re.sub(rf"\b{re.escape(word)}\b", near[min(place, len(near) - 1)], text)
        yield text


def _stands(base: sqlite3.Connection, word: str) -> bool:
    """Whether any passage holds a word, in name, type or text."""
    return base.execute("SELECT 1 FROM passage WHERE passage MATCH ? LIMIT 1", (f'"{word}"',)).fetchone() is not None
