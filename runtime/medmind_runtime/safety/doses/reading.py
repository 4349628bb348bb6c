"""What a reader sees of a text in Markdown, as tokens that know where they stand in the text.

Knows Unicode, Markdown's signs, HTML's entities and LaTeX's spaces. Knows no doses but what a written number is.
"""

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from medmind_runtime.safety.doses.lookalikes import in_latin
from medmind_runtime.safety.doses.terms import terms

_SPECIAL = re.compile(
    r"&(?:\#\d{1,7}|\#x[0-9a-f]{1,6}|[a-z]{2,8}[0-9]{0,2});"  # entities
    r"|</?[a-z][^<>\s]{0,80}/?>?|<!--|-->"  # tags
    r"|\]\(\S*?(?:\)|$)"  # where a link leads
    r"|\\d?frac\{(?P<above>\d{1,9})\}\{(?P<below>\d{1,9})\}"
    r"|\\(?P<times>times|cdot)(?![a-z])|\\(?:text|math)[a-z]{0,6}(?![a-z])|\\[,;:! ]|\\(?![a-z])|\\[a-z]{1,12}",
    re.I,
)
_LETTER = r"[^\W\d_²³¹⁰⁴-₎¼-¾⅐-⅞↉]"
"""Raised, lowered and fraction signs are none, which Python's \\w has."""
_TOKEN = re.compile(
    r"(?P<number>\d+(?:[.,'’]\d+)*|\.\d+)"
    rf"|(?P<short>(?:{_LETTER}\.){{2,6}}(?!{_LETTER})|(?:{_LETTER}\.){{1,12}}{_LETTER}(?!{_LETTER}))"
    rf"|(?P<word>{_LETTER}{{1,60}}(?:['’]{_LETTER}{{1,10}}){{0,2}})|(?P<sign>[=-]>|[^\s\x00])",
)
_ARROWS = frozenset({"->", "=>"})
_DIGITS = re.compile(r"(?<![^\W_])(?:[Il](?=[0-9O])|[0-9])(?:[0-9OoI]|l(?=[0-9OoIl]))*")
"""`8OO`, `l00`: letters that look like digits, in a number; the `l` of `5l` is a unit."""
_LIKE_DIGITS = str.maketrans("OoIl", "0011")
_RAISED = frozenset("¹²³⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉")
UNREADABLE = Fraction(-1)
"""The value of a number that nobody writes so; it equals none."""
_LONGEST = 24
"""Digits of a number that is still read; a longer one equals none."""


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number or sign as a reader sees it.

    Attributes:
        text: in lower case; a number as it is written; "\\n" for the end of a line, "." for that of a sentence.
        start, end: in the text.
        value: of a number in digits or of a sign such as ½; None for others.
        written: as in the text, NFKC.
        glued: no space before it.
    """

    text: str
    start: int
    end: int
    value: Fraction | None = None
    written: str = ""
    glued: bool = False

    @property
    def is_word(self) -> bool:
        """Letters, no number and no sign."""
        return self.text[:1].isalpha()


@cache
def _sign(sign: str) -> str:
    """One character as it is read."""
    kind, digit = unicodedata.category(sign), unicodedata.decimal(sign, None)
    if sign in "*_`" or kind in {"Cf", "Mn", "Me"}:
        return ""
    if digit is not None or kind == "Nl":
        return str(int(unicodedata.numeric(sign)))
    if sign in _RAISED or unicodedata.decomposition(sign).startswith("<fraction>"):
        return sign
    return unicodedata.normalize("NFKC", sign)


def _seen(text: str) -> tuple[str, list[int]]:
    """What is seen, and where each of its characters stands; the last place is the end of the text."""
    signs: list[str] = []
    places: list[int] = []

    def add(seen: str, place: int) -> None:
        signs.append(seen)
        places.extend([place] * len(seen))

    def add_plain(start: int, end: int) -> None:
        for place in range(start, end):
            sign = text[place]
            if sign.isascii() and (sign.isalnum() or sign in " .,;:()/"):
                add(sign, place)
            elif (
                sign in "*~_" and 0 < place < len(text) - 1 and text[place - 1].isdigit() and text[place + 1].isdigit()
            ):
                add({"*": "×", "~": "-", "_": " "}[sign], place)
            elif sign == "_":
                add(" ", place)
            elif sign == "~":
                add("", place)
            else:
                add(_sign(sign), place)

    at = 0
    for special in _SPECIAL.finditer(text) if any(sign in text for sign in "&<\\]-") else ():
        add_plain(at, special.start())
        at = special.end()
        written = special.group()
        if written.startswith("&"):
            add("".join(_sign(sign) for sign in html.unescape(written)), special.start())
        elif special["above"]:
            add(f"{special['above']}/{special['below']}", special.start())
        elif special["times"]:
            add("×", special.start())
        elif written.startswith("\\") and len(written) == 2 and written[1] in ",;:! ":
            add(" ", special.start())
        elif written.startswith("]"):
            add("]", special.start())
        elif written.startswith("<br"):
            add(" ", special.start())
    add_plain(at, len(text))
    places.append(len(text))
    return "".join(signs), places


def number(written: str) -> Fraction:
    """The value of a number in digits: a comma before three digits groups them, otherwise it begins the decimals."""
    if len(written) > _LONGEST:
        return UNREADABLE
    text = written.replace("'", "").replace("’", "")
    last = max(text.rfind("."), text.rfind(","))
    if last < 0:
        return Fraction(text)
    mark, parts = text[last], re.split("[.,]", text)
    both = "." in text and "," in text
    grouped = all(len(part) == 3 for part in parts[1:]) and parts[0] not in {"", "0"}
    if not both and grouped and (mark == "," or len(parts) > 2):
        return Fraction("".join(parts))
    if text.count(mark) > 1:
        return UNREADABLE
    return Fraction(f"{''.join(parts[:-1]) or '0'}.{parts[-1]}")


def text_at(row: Sequence[Token], at: int) -> str:
    """The token there; empty outside of the row."""
    return row[at].text if 0 <= at < len(row) else ""


@lru_cache(1 << 13)
def of_word(text: str) -> tuple[Token, ...]:
    """The tokens of one word with its white space, remembered: a stream has most of its words many times."""
    return tuple(tokens(text))


def tokens(text: str, offset: int = 0) -> Iterator[Token]:
    """The tokens of a text that begins at `offset` of a longer one.

    White space must end it, or the whole text: a word that is cut in two is read as two.
    """
    seen, places = _seen(text)
    known = terms()
    seen = in_latin(seen, known.spellable)
    seen = _DIGITS.sub(lambda found: found.group().translate(_LIKE_DIGITS), seen)
    end = 0
    for found in _TOKEN.finditer(seen):
        start, glued = found.start(), found.start() == end and found.start() > 0
        end = found.end()
        where = (offset + places[start], offset + places[end - 1] + 1)
        if places[end] > places[end - 1] + 1 and "\n" not in text[places[end - 1] : places[end]]:
            tail = text[places[end - 1] : places[end]]
            if tail.startswith(("&", "\\")):  # the last sign of it is written with many
                where = (where[0], offset + places[end])
        written = found.group() if found.group() not in _ARROWS else "→"
        if found.lastgroup == "number":
            yield Token(written, *where, number(written), written, glued)
        elif found.lastgroup == "sign":
            value = unicodedata.numeric(written, None) if written not in "²³¹" and not written.isalpha() else None
            fraction = None if value is None else Fraction(value).limit_denominator(1000)
            if fraction is not None and unicodedata.category(written) != "No":
                fraction = None
            yield Token("." if written in ".!?;" else written, *where, fraction, written, glued)
        else:
            plain = written.replace(".", "") if found.lastgroup == "short" else written
            parts = known.split(plain.lower())
            for part in parts or [plain]:
                yield Token(part.lower().replace("’", "'"), *where, None, part, glued)
