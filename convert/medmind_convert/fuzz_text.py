"""Lines of text made to find differences between two tokenizers: scripts, emoji, control tokens, broken UTF-8, pieces.

Knows characters and a vocabulary's pieces; compares nothing. The same seed gives the same lines.
"""

import random
from collections.abc import Callable, Iterator, Sequence

_WORDS = [
    "the",
    "patient",
    "reports",
    "chest",
    "pain",
    "after",
    "exercise",
    "hypercholesterolaemia",
    "electroencephalographically",
    "glaucoma",
    "Ménière's",
    "Sjögren's",
    "naïve",
    "façade",
    "β-blockers",
    "37.5",
    "°C",
    "≥140/90",
    "mmHg",
    "x²",
    "µg",
    "½",
    "tablet",
    "e-mail",
    "don't",
    "I'll",
    "COVID-19",
    "anti-inflammatory",
    "HbA1c",
    "p<0.05",
    "(n=12)",
    "1,000,000",
    "3.14e-5",
    "https://example.org/a?b=c&d=%20",
    "C:\\temp\\x.txt",
]
_RANGES: dict[str, Sequence[tuple[int, int]]] = {
    "Latin": ((0x20, 0x7E), (0xA1, 0x17F), (0x1E00, 0x1EFF)),
    "Greek and Cyrillic": ((0x370, 0x3FF), (0x400, 0x4FF)),
    "right to left": ((0x5D0, 0x5EA), (0x620, 0x64A), (0x6F0, 0x6F9), (0x200E, 0x200F), (0x202A, 0x202E)),
    "CJK": ((0x4E00, 0x9FFF), (0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3), (0x20000, 0x20100)),
    "South Asian": ((0x905, 0x939), (0x93E, 0x94D), (0xE01, 0xE3A), (0xE40, 0xE4E), (0x995, 0x9B9)),
    "emoji": ((0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF), (0x1F3FB, 0x1F3FF), (0x1F1E6, 0x1F1FF)),
    "marks": ((0x300, 0x36F), (0xFE0F, 0xFE0F), (0x20D0, 0x20F0)),
    "odd spaces": ((0x2000, 0x200D), (0x2028, 0x202F), (0xA0, 0xA0), (0xFEFF, 0xFEFF), (0x3000, 0x3000)),
    "control characters": ((0x01, 0x1F), (0x7F, 0x9F)),
    "anything": ((0x20, 0xD7FF), (0xE000, 0x10FFFF)),
}  # fmt: skip
_EMOJI = ("👩🏽‍⚕️", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "1️⃣", "🩺", "🫁", "❤️‍🔥", "🧑🏿‍🔬")


def lines(count: int, *, pieces: Sequence[str] = (), controls: Sequence[str] = (), seed: int = 0) -> Iterator[str]:
    """`count` lines, one of each kind in turn.

    Args:
        count: how many.
        pieces: texts of a vocabulary's tokens, strung together at random: they meet at every boundary.
        controls: texts of control tokens, put among words with and without spaces around them.
        seed: of the choice.
    """
    random_ = random.Random(seed)
    kinds: list[Callable[[random.Random], str]] = [_words, _spaces, _numbers, _broken, _emoji, _mixed]
    kinds += [_script(name) for name in _RANGES]
    if pieces:
        kinds += [lambda chance: "".join(chance.choices(pieces, k=chance.randint(1, 14)))] * 3
    if controls:
        kinds += [lambda chance: _with_controls(chance, controls)] * 2
    for number in range(count):
        yield kinds[number % len(kinds)](random_)


def _words(chance: random.Random) -> str:
    words = chance.choices(_WORDS, k=chance.randint(1, 12))
    change = chance.choice((str, str.upper, str.capitalize, str.title))
    return chance.choice((" ", " ", "  ", "-", "\t", "")).join(map(change, words))


def _spaces(chance: random.Random) -> str:
    blanks = (" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "▁", "\u00a0", " " * chance.randint(1, 40))
    parts = [chance.choice(blanks) + chance.choice((*_WORDS, "", "")) for _ in range(chance.randint(1, 8))]
    return "".join(parts) + chance.choice(("", *blanks))


def _numbers(chance: random.Random) -> str:
    forms = ("{:d}", "{:,d}", "{:08d}", "{:x}", "{:.3e}", "-{:d}%", "{:d}/{:d}", "{:d}:{:d}", "#{:d}")
    parts = [
        chance.choice(forms).format(chance.randrange(10 ** chance.randint(1, 9)), chance.randrange(100))
        for _ in range(6)
    ]
    return chance.choice((" ", ", ", "")).join(parts)  # fmt: skip


def _broken(chance: random.Random) -> str:
    """Bytes that are no UTF-8, as any program that reads text gets them: with U+FFFD in their place."""
    data = bytearray("".join(chance.choices((*_WORDS, *_EMOJI, "é", "糖", "ع"), k=chance.randint(2, 8))).encode())
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        if chance.random() < 0.5:
            data[place] = chance.randrange(0x80, 0x100)
        else:
            del data[place : place + chance.randint(1, 2)]
        if not data:
            data = bytearray(b"\xff")
    return data.decode("utf-8", "replace")


def _emoji(chance: random.Random) -> str:
    return "".join(chance.choice(_EMOJI) + chance.choice(("", " ", "a", ".")) for _ in range(chance.randint(1, 8)))


def _mixed(chance: random.Random) -> str:
    return "".join(_script(chance.choice(tuple(_RANGES)))(chance)[:6] for _ in range(chance.randint(2, 6)))


def _script(name: str) -> Callable[[random.Random], str]:
    ranges = _RANGES[name]

    def line(chance: random.Random) -> str:
        parts = []
        for _ in range(chance.randint(1, 6)):
            low, high = chance.choice(ranges)
            parts.append("".join(chr(chance.randint(low, high)) for _ in range(chance.randint(1, 9))))
        return chance.choice(("", " ")).join(parts)

    return line


def _with_controls(chance: random.Random, controls: Sequence[str]) -> str:
    parts = []
    for _ in range(chance.randint(1, 5)):
        parts.append(chance.choice(("", " ", "\n")) + chance.choice(controls) + chance.choice(("", " ", "\n")))
        parts.append(chance.choice((*_WORDS, "", "🩺", "糖尿病", controls[0][:-1])))
    return "".join(parts)
