"""What repeats in data by its making: question templates and boilerplate passages. Knows texts and focuses."""

import re
from collections import Counter
from collections.abc import Sequence

from medmind_train.data.clean import comparable
from medmind_train.data.components import BOILERPLATE, answer_text, focus_key
from medmind_train.data.rows import Row

SLOT = "{focus}"
_PASSAGE = re.compile(r"\n+|(?<=[.!?])\s+")
_SHORTEST = 5
"""Words of a passage that is worth being called boilerplate: "Genetic counseling" is not."""


def template(question: str, focus: str) -> str:
    """The question with its focus replaced by a slot, whatever its case and the white space within it."""
    if not focus:
        return question
    spelt = r"\s+".join(re.escape(word) for word in focus.split())
    return re.sub(rf"(?<!\w){spelt}(?!\w)", SLOT, question, flags=re.IGNORECASE)


def templates(rows: Sequence[Row]) -> Counter[str]:
    """Rows by the template of their first question; questions without their focus in them are their own."""
    return Counter(template(row.question, row.focus) for row in rows)


def boilerplate(rows: Sequence[Row]) -> tuple[list[tuple[str, int, int]], float]:
    """Passages (sentences or lines) of five words or more that stand under ten focuses or more, the focus a slot.

    Returns:
        (passage, rows, focuses) for each, most focuses first; and their share of all answers' characters.
    """
    rows_of: dict[str, int] = {}
    focuses_of: dict[str, set[str]] = {}
    shown: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    total = 0
    for row in rows:
        own = focus_key(row)
        seen = set()
        for passage in _PASSAGE.split(template(answer_text(row), row.focus)):
            total += len(passage)
            name = comparable(passage)
            if name.count(" ") < _SHORTEST - 1:
                continue
            sizes[name] += len(passage)
            if name not in seen:
                seen.add(name)
                shown.setdefault(name, passage)
                rows_of[name] = rows_of.get(name, 0) + 1
                focuses_of.setdefault(name, set()).add(own)
    found = [(shown[name], rows_of[name], len(own)) for name, own in focuses_of.items() if len(own) >= BOILERPLATE]
    share = sum(sizes[name] for name, own in focuses_of.items() if len(own) >= BOILERPLATE) / max(total, 1)
    return sorted(found, key=lambda entry: (-entry[2], -entry[1], entry[0])), share
