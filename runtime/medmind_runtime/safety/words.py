"""From typed text to words: quotes, contractions, run-on spellings and numbers put into one form, sentences kept apart.

Knows how people type, and where in the text a word stands. Knows nothing of medicine; its tables stand in lexicon.toml.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

SENTENCE, BREAK = ".", ","
"""What stands for the end of a sentence, and for a comma, a bracket or a dash within one."""

_PIECE = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+(?:[.,/]\d+)*|[.!?…\n]+|[,;:()\[\]{}—–]|°")
_TOKENS = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:unk|pad|bos|eos|mask|0x[0-9a-f]{2})>|</?(?:start|end)_of_(?:turn|text)>|<</?sys>>|"
    r"\[/?(?:inst|system_prompt|available_tools|tool_calls|tool_results)\]"
)
"""Special tokens typed as text: no words of a person. Source: chat templates of Mistral, Llama, Qwen and Gemma."""
_QUOTES = str.maketrans(dict.fromkeys("’‘`´ʼ′＇", "'"))
_RUN = re.compile(r"([^\W\d_])\1{2,}")
_ENDINGS = {"'m": "am", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_UNITS = {word: value for value, word in enumerate(_NAMES.split())}
_TIES = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * value for value, word in enumerate(_TIES.split(), 2)}
_TENS["fourty"] = 40


@dataclass(frozen=True)
class Word:
    """One word, number or mark.

    Attributes:
        text: lower case; `SENTENCE` and `BREAK` for the marks, digits for a number.
        value: of a number, spelt or in digits; None for anything else.
        start, end: where it stands in the plain text; the words that one piece of it stands for share them.
    """

    text: str
    value: float | None = None
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


def plain(text: str) -> str:
    """What was typed, in lower case, with straight quotes, without what is not seen and without special tokens."""
    one = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    one = "".join(sign for sign in one if unicodedata.category(sign) not in ("Cf", "Mn"))
    return _RUN.sub(r"\1\1", _TOKENS.sub(" ", one))


def split(text: str, spellings: Mapping[str, str]) -> list[Word]:
    """The words of a plain text, in order.

    Args:
        text: as `plain` gives it.
        spellings: what a word that people run together or shorten stands for, one or several words
            ("cant" → "can not").
    """
    words: list[Word] = []
    for found in _PIECE.finditer(text):
        _add(words, found.group(), *found.span(), spellings)
    return words


def _add(words: list[Word], piece: str, start: int, end: int, spellings: Mapping[str, str]) -> None:
    first = piece[0]
    if first in ".!?…;\n":
        if words and words[-1].text != SENTENCE:
            words.append(Word(SENTENCE, None, start, end))
    elif first.isdigit():
        words.append(Word(piece, _number(piece), start, end))
    elif not (first.isalpha() or first == "°"):
        words.append(Word(BREAK, None, start, end))
    else:
        for word in spellings.get(piece, _expanded(piece)).split():
            if word in _UNITS or word in _TENS:
                _add_number(words, word, start, end)
            else:
                words.append(Word(word, None, start, end))


def _number(piece: str) -> float | None:
    thousands = re.fullmatch(r"\d{1,3}(,\d{3})+", piece)
    try:
        return float(piece.replace(",", "" if thousands else "."))
    except ValueError:  # 120/80, or a date: it keeps its text
        return None


def _add_number(words: list[Word], word: str, start: int, end: int) -> None:
    """Add a number word; "thirty five" becomes one number."""
    last = words[-1] if words else None
    if word in _UNITS and last is not None and last.text in _TENS and _UNITS[word] < 10:
        words[-1] = Word(f"{last.text} {word}", (last.value or 0) + _UNITS[word], last.start, end)
    else:
        words.append(Word(word, float(_UNITS.get(word, _TENS.get(word, 0))), start, end))


def _expanded(word: str) -> str:
    """Contractions taken apart: "don't" is "do not", "he's" is "he"."""
    if word.endswith("n't"):
        stem = {"ca": "can", "wo": "will", "sha": "shall", "ai": "is"}.get(word[:-3], word[:-3])
        return f"{stem} not"
    for ending, full in _ENDINGS.items():
        if word.endswith(ending):
            return f"{word[: -len(ending)]} {full}"
    return word.partition("'")[0]


def near(words: Sequence[Word], at: int, reach: int) -> set[str]:
    """The words up to `reach` places away in the same sentence."""
    return {*before(words, at, reach), *behind(words, at, reach)}


def before(words: Sequence[Word], at: int, reach: int) -> list[str]:
    """As many words before a place, in the same sentence, the nearest first."""
    return _sentence(word.text for word in reversed(words[max(0, at - reach) : at]))


def behind(words: Sequence[Word], at: int, reach: int) -> list[str]:
    """As many words behind a place, in the same sentence, the nearest first."""
    return _sentence(word.text for word in words[at + 1 : at + 1 + reach])


def _sentence(texts: Iterable[str]) -> list[str]:
    return list(takewhile(lambda text: text != SENTENCE, texts))
