"""What a clean text is: white space, line ends and lists put right, nothing reworded. Knows texts, not rows."""

import re
import unicodedata

_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u200b\ufeff\u00ad\ud800-\udfff]")
_INLINE_ITEM = re.compile(r"(?<=\S)[^\S\n]{2,}(?=[-•*][^\S\n])")
_INLINE_BREAK = re.compile(r"(?<=\S)[^\S\n]{3,}(?=[A-Z])")
_BLANKS = re.compile(r"[^\S\n]+")
_SUSPECT = re.compile(r"\s\s|[^\S ]")
_BULLETS = ("-", "•", "*")
_QUESTION_MARKS = re.compile(r"\s*\?(?:\s*\?)*")


def clean_text(text: str) -> str:
    """Put a text's white space right; paragraphs and lists stay.

    Line ends become `\\n`, other runs of white space one space, several blank lines one. MedQuAD flattened its lists to
    runs of spaces before a dash, and its paragraphs to three spaces or more before a capital: these get their lines
    back. A line that goes on in lower case without a
    sentence end before it was wrapped by its source and is joined again. Invisible characters go; Unicode is NFC.
    """
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", unicodedata.normalize("NFC", text)))
    if not _SUSPECT.search(text):
        return text.strip()
    lines: list[str] = []
    blank = False
    for line in _INLINE_BREAK.sub("\n", _INLINE_ITEM.sub("\n", text)).split("\n"):
        line = _BLANKS.sub(" ", line).strip()  # noqa: PLW2901 (the raw line is of no further use)
        if not line:
            blank = bool(lines)
        elif lines and (lines[-1] in _BULLETS or (not blank and line[0].islower() and lines[-1][-1] not in ".:;!?")):
            lines[-1] += f" {line}"
            blank = False
        else:
            if blank:
                lines.append("")
            lines.append(line)
            blank = False
    return "\n".join(lines)


def clean_question(text: str) -> str:
    """As `clean_text`; also `Who is at risk for Cataract? ?` becomes `Who is at risk for Cataract?`."""
    return _QUESTION_MARKS.sub("?", clean_text(text)).strip()


def comparable(text: str) -> str:
    """What is left of a text when case, punctuation and spacing do not count: words between single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", re.sub(r"['’`´]", "", text)).split())
