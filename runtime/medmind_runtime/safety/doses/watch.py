"""A stream of an answer's words without the doses that no passage has.

Holds text back while it may be a part of a dose; costs the same for every word. Knows neither tables nor how a text is
cut.
"""

import re
from collections import deque
from collections.abc import Sequence

from medmind_runtime.safety.doses import holding, mentions, often, spelt, subjects
from medmind_runtime.safety.doses.cutting import without
from medmind_runtime.safety.doses.drugs import is_drug, stem
from medmind_runtime.safety.doses.reading import Token, of_word
from medmind_runtime.safety.doses.support import Passages
from medmind_runtime.safety.doses.table import Table

_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\s*\S+\s")
_CONTEXT = 90
"""Tokens kept of what was shown."""
_MOST_HELD, _KEPT_BACK = 160, 50
"""Words: of a row of numbers without an end the first are shown when that many are held, and the last not yet."""
_LONGEST_WORD = 600


class DoseWatch:
    """Lets a stream through but for doses that no passage has for the same drug.

    Args:
        passages: the texts of what the model was given, or what was made of them.
        asked: the question, whose drug is meant where the answer names none.
    """

    def __init__(self, passages: Sequence[str] | Passages, asked: str = "") -> None:
        self._passages = passages.when_asked(asked) if isinstance(passages, Passages) else Passages(passages, asked)
        self._pending: list[str] = []
        self._pending_size = 0
        self._words: deque[tuple[str, list[Token], int]] = deque()
        self._left = 0
        self._shown: list[Token] = []
        self._named: frozenset[str] = frozenset()
        self._table = Table()
        self._line_ended = self._after_as = False
        self._numbered = False  # the last word was a number
        self._drugless = False  # one was said in this sentence, without its drug so far

    def feed(self, text: str) -> str:
        """Take the next words; return what may be shown."""
        self._pending.append(text)
        self._pending_size += len(text)
        if not _SPACE.search(text) and self._pending_size < _LONGEST_WORD:
            return ""
        whole = "".join(self._pending)
        made, at = [], 0
        while found := _WORD.match(whole, at):
            made.append(self._take(found.group()))
            at = found.end()
        if len(whole) - at >= _LONGEST_WORD:
            cut = next(
                (place for place in range(len(whole), at + _LONGEST_WORD // 2, -1) if not whole[place - 1].isalnum()),
                len(whole) - 64,
            )
            made.append(self._take(whole[at:cut]))
            at = cut
        self._pending, self._pending_size = [whole[at:]], len(whole) - at
        return "".join(made)

    def finish(self) -> str:
        """What was held back."""
        rest, self._pending, self._pending_size = "".join(self._pending), [], 0
        made = self._take(rest) if rest else ""
        return made + self._release()

    def _take(self, word: str) -> str:
        """One more word; what may be shown."""
        row = [Token("\n", 0, 0)] if "\n" in word[: len(word) - len(word.lstrip())] else []
        row += of_word(word)
        made = ""
        paragraph = self._line_ended and bool(row) and row[0].text == "\n"
        if paragraph or (self._table.unit and self._table.ends(row)):
            made = self._release()
            self._left = 0
        self._line_ended = word.endswith("\n")
        self._table.take(row)
        if self._line_ended:
            row.append(Token("\n", len(word) - 1, len(word)))
            self._table.take(row[-1:])
        window = holding.SETTLED if self._after_as and holding.is_much(word) else holding.words_after(word)
        self._after_as = bool(row) and row[-1].text == "as"
        self._words.append((word, row, window))
        self._left = max(self._left - 1, holding.SETTLED if self._left and holding.adds(word) else window)
        number, closed = holding.bare(word)
        bare = closed or (self._numbered and holding.counts_nothing(word))
        self._numbered = number
        ended = self._line_ended or self._passages.drug_asked or holding.names_or_ends(word)
        self._drugless = (bare or self._drugless) and not ended
        if not self._left and not (self._drugless and len(self._words) < holding.FAR):
            return made + self._release()
        if len(self._words) > _MOST_HELD:
            return made + self._release(_KEPT_BACK)
        return made

    def _release(self, kept_back: int = 0) -> str:
        """What is held, checked, but for the last words."""
        if not self._words:
            return ""
        text = "".join(word for word, *_ in self._words)
        held: list[Token] = []
        ends: list[tuple[int, int]] = []
        at = 0
        for word, own, _ in self._words:
            held += [Token(t.text, t.start + at, t.end + at, t.value, t.written, t.glued) for t in own] if at else own
            at += len(word)
            ends.append((at, len(held)))
        if not self._left and not any(window for *_, window in self._words):
            self._words.clear()
            self._keep(self._shown + held)
            return text
        known = len(self._shown)
        held, places = spelt.joined(held)
        row = self._shown + held
        ends = [(at, known + (places[size - 1] + 1 if size else 0)) for at, size in ends]
        doses = list(mentions.find(row, self._table.unit, asked=self._passages.dose_asked))
        times = list(often.find(row, asked=self._passages.drug_asked))
        claims = subjects.said(row, doses, times, strict=False) + subjects.said(row, times, doses, strict=False)
        claims.sort(key=lambda claim: claim.mention.first)
        end, last = ends[-1 - kept_back]
        for claim in claims:
            while claim.mention.first < last < claim.mention.last and len(ends) - 1 > kept_back:
                kept_back += 1
                end, last = ends[-1 - kept_back]
        cuts = [
            (row[claim.mention.first].start, row[claim.mention.last - 1].end)
            for claim in claims
            if known <= claim.mention.first < last and not self._passages.have(claim, self._named)
        ]
        for _ in range(len(ends) - kept_back):
            self._words.popleft()
        self._keep(row[:last])
        return without(text[:end], cuts)

    def _keep(self, row: list[Token]) -> None:
        """Remember the end of what was shown, and the drug that was named last before it."""
        gone = row[:-_CONTEXT]
        for token in reversed(gone):
            if is_drug(token):
                self._named = frozenset({stem(token.text)})
                break
        self._shown = row[-_CONTEXT:]
