"""How an answer is shown while it streams: drawn Markdown on a terminal that can, the very text everywhere else."""

import os
import sys
from typing import Protocol

from medmind import console


class Display(Protocol):
    """Shows one answer."""

    def feed(self, text: str) -> None:
        """Show more of it."""
        ...

    def settle(self) -> None:
        """What is shown so far stays as it is: something else may be written below it before more comes."""
        ...

    def finish(self) -> None:
        """It has ended."""
        ...


def printable(text: str) -> str:
    """Without control characters but line ends and tabs: a model's words must not steer the terminal."""
    return "".join(sign for sign in text if sign in "\n\t" or not (ord(sign) < 32 or 127 <= ord(sign) < 160))


class Plain:
    """Writes an answer as it is; on a terminal without control characters."""

    def __init__(self) -> None:
        self._clean = printable if sys.stdout.isatty() else str

    def feed(self, text: str) -> None:
        """Write and flush."""
        sys.stdout.write(self._clean(text))
        sys.stdout.flush()

    def settle(self) -> None:
        """Nothing written is ever drawn anew."""

    def finish(self) -> None:
        """End the line."""
        sys.stdout.write("\n")
        sys.stdout.flush()


class _Drawn:
    """Draws Markdown, without control characters."""

    def __init__(self) -> None:
        from medmind_runtime.terminal.markdown import Rendered

        self._rendered = Rendered(console.out)

    def feed(self, text: str) -> None:
        self._rendered.feed(printable(text).expandtabs(4))

    def settle(self) -> None:
        self._rendered.finish()

    def finish(self) -> None:
        self._rendered.finish()


def of_answers(*, markdown: bool) -> Display:
    """The display for here: a terminal that cannot draw, or has no UTF-8, gets plain text, as a pipe does."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    capable = sys.stdout.isatty() and os.environ.get("TERM", "") not in {"dumb", "unknown"}
    return _Drawn() if markdown and capable and encoding == "utf8" else Plain()
