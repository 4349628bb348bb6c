"""Signs that a text was decoded wrongly on its way here, each of a kind that has a name. Mends nothing."""

import re

_PATTERNS = {
    "replacement character": re.compile("\ufffd"),
    "UTF-8 read as Latin-1": re.compile(
        "[\u00c3\u00c2][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
        "|\u00e2[\u0080-\u009f\u20ac][\u0080-\u00bf\u0152\u0153\u02dc\u0161\u017e\u2018-\u2026\u2122]"
    ),
    "? inside a word": re.compile(r"(?<![\w/.?=&])[^\W\d_]+\?[a-z]\w*(?![\w/=&])"),
    "HTML entity": re.compile(
        r"&(?:#\d{2,5}|#x[0-9a-fA-F]{2,5}|amp|lt|gt|quot|nbsp|apos|[aeiouAEIOU](?:acute|uml|grave));"
    ),
    "control character": re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"),
    "private use character": re.compile("[\ue000-\uf8ff]"),
}
"""UTF-8 as Latin-1 or Windows-1252: a lead byte C3, C2 or E2 as a letter, then what a continuation byte becomes; an
accented capital alone, as in Portuguese, is none. A `?` inside a word, a lower-case letter after it, stands for a
letter that could not be encoded (or for a forgotten space); one in an address (`page.cfm?id=3`) does not."""


def signs(text: str) -> dict[str, str]:
    """The kinds found in a text, each with its first place: up to 20 characters on either side, on one line."""
    found = {}
    for kind, pattern in _PATTERNS.items():
        if place := pattern.search(text):
            found[kind] = " ".join(text[max(place.start() - 20, 0) : place.end() + 20].split())
    return found
