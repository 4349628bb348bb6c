"""Letters of other alphabets that look like Latin ones, in words that have no other foreign letters: `mɡ`, `тablets`.

Knows single letters. Knows no words.
"""

import re
from collections.abc import Container

_ALIKE = {
    "a": "аɑα", "b": "ЬƄ", "c": "сϲ", "d": "ԁ", "e": "еҽ", "g": "ɡցг", "h": "һհ", "i": "іɩıι", "j": "јϳ", "k": "кκ",
    "l": "ӏ", "m": "м", "n": "ոп", "o": "оοσօ", "p": "рρ", "q": "ԛ", "r": "ᴦ", "s": "ѕ", "t": "тτ", "u": "υս",
    "v": "ѵν", "w": "ԝѡ", "x": "хχ", "y": "уүγ", "A": "АΑ", "B": "ВΒ", "C": "СϹ", "E": "ЕΕ", "G": "Ԍ", "H": "НΗ",
    "I": "ІΙӀ", "J": "Ј", "K": "КΚ", "M": "МΜ", "N": "Ν", "O": "ОΟՕ", "P": "РΡ", "S": "Ѕ", "T": "ТΤ", "X": "ХΧ",
    "Y": "ҮΥ", "Z": "Ζ",
}  # fmt: skip
"""After Unicode's confusables (UTS 39), and a few more that pass for Latin in a line of it. A Greek μ is none: `μg`."""
_LATIN = str.maketrans({sign: letter for letter, signs in _ALIKE.items() for sign in signs})
_DIGITS = str.maketrans("ЗОΟՕоοІΙӀ", "300000111")
_ALL = "".join(_ALIKE.values())
_WORD = re.compile(rf"(?<![^\W_])[A-Za-z0-9{_ALL}З]+(?![^\W_])")


def in_latin(seen: str, known: Container[str]) -> str:
    """A text of the same length, such words in Latin letters.

    Args:
        seen: a text, NFKC.
        known: words that are read so although no letter of theirs is Latin.
    """

    def whole(found: re.Match[str]) -> str:
        word = found.group()
        if word.isascii():
            return word
        if (digits := word.translate(_DIGITS)).isdigit() and not word.isalpha():  # `8ОО`
            return digits
        latin = word.translate(_LATIN)
        mixed = any("A" <= letter <= "z" for letter in word)
        return latin if mixed or latin.strip("0123456789").lower() in known else word

    return seen if seen.isascii() else _WORD.sub(whole, seen)
