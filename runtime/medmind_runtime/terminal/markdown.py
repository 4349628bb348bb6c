"""Markdown that appears while it is written: finished blocks are printed for good, the open one is drawn anew in place.

Every word and sign of the text stays visible: what Markdown would hide or read wrongly in a medical text is shown as
typed. Knows nothing of models.
"""

import re
import time

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown
from rich.segment import Segment, Segments

_FRAME = 0.05
"""Seconds between two drawings of the open block: faster is not read and costs the model time."""
_SHARE = 20
"""So many times as long as a drawing took passes before the next: a long block must not slow the model down."""
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LITERAL = re.compile(
    r"(?P<code>(?P<ticks>`+).+?(?P=ticks))"
    r"|(?<=\w)(?P<product>\*)(?=\w)"  # 2*500*3 is a product, and no emphasis
    r"|(?P<mark>^(?:[ \t]*|[ \t]*(?:[-*+]|\d+[.)])[ \t]+))(?P<above>>)(?=[ \t]*[\d=])",  # > 120 mmHg quotes nobody
    re.MULTILINE | re.DOTALL,
)


class _Heading(Heading):
    """A heading at the margin, where the text is."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class AsWritten(Markdown):
    """rich's Markdown without what hides text: tags, link targets and images stay as typed, line ends are line ends."""

    elements = {**Markdown.elements, "heading_open": _Heading}  # noqa: RUF012 - rich declares it a plain dict

    def __init__(self, markup: str) -> None:
        super().__init__("", hyperlinks=False, code_theme="ansi_dark")
        self.markup = markup
        parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
        self.parsed = parser.disable(["html_inline", "html_block", "reference", "image", "entity", "autolink"]).parse(
            markup if _FENCE.match(markup) else _LITERAL.sub(_escaped, markup)
        )
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"


def _escaped(found: re.Match[str]) -> str:
    if found["code"]:
        return found["code"]
    return r"\*" if found["product"] else rf"{found['mark']}\>"


def _lines(console: Console, options: ConsoleOptions, block: str) -> list[list[Segment]]:
    """A block's lines, none of them filled up with spaces or empty at the block's edges."""
    lines = console.render_lines(AsWritten(block), options.update(height=None), pad=False)
    for line in lines:
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
    filled = [place for place, line in enumerate(lines) if line]
    return lines[filled[0] : filled[-1] + 1] if filled else []


class _Tail:
    """The last lines of a block that fit the screen; more could not be drawn anew."""

    def __init__(self, block: str) -> None:
        self._block = block

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(1, options.size.height - 2)
        for line in _lines(console, options, self._source(height))[-height:]:
            yield from line
            yield Segment.line()

    def _source(self, height: int) -> str:
        """As much of the block's end as fills the screen: its lines, from one at the margin on; a fence stays."""
        lines = self._block.split("\n")
        begin = len(lines) - height
        if _FENCE.match(lines[0]):
            return "\n".join([lines[0], *lines[max(1, begin) :]])
        while begin > 0 and (not lines[begin] or lines[begin][0].isspace()):
            begin -= 1
        return "\n".join(lines[max(0, begin) :])


class Blocks:
    """Cuts a stream of Markdown into blocks that later text cannot change: at blank lines before text at the margin."""

    def __init__(self) -> None:
        self.open = ""
        self._begin()

    def _begin(self) -> None:
        """No line of the open block has been looked at."""
        self._at = 0
        self._fence = ""
        self._blank = False

    def feed(self, text: str) -> list[str]:
        """Take text; return the blocks that it finished."""
        self.open += text
        done: list[str] = []
        while (end := self._end()) is not None:
            if block := self.open[:end].strip("\n"):
                done.append(block)
            self.open = self.open[end:].lstrip("\n")
            self._begin()
        return done

    def finish(self) -> list[str]:
        """What is left, when the text has ended."""
        block, self.open = self.open.strip("\n"), ""
        self._begin()
        return [block] if block.strip() else []

    def _end(self) -> int | None:
        """Where the first block of the open text ends, once that is sure; None before.

        Lines that have ended are looked at once, the last one each time.
        """
        *whole, last = self.open[self._at :].split("\n")
        for line in whole:
            end = self._end_at(line, ended=True)
            if end is not None:
                return end
            if not self._fence and (found := _FENCE.match(line)):
                self._fence = found[1]
            self._blank = not line.strip()
            self._at += len(line) + 1
        return self._end_at(last, ended=False)

    def _end_at(self, line: str, *, ended: bool) -> int | None:
        """Where the block ends if this line, the next to be looked at, ends it."""
        found = _FENCE.match(line)
        if self._fence:
            closes = ended and found and found[1].startswith(self._fence) and not line.strip(" `~")
            return self._at + len(line) + 1 if closes else None
        follows = self._blank and line and not line[0].isspace()
        return self._at if follows or (found and self._at) else None


class Rendered:
    """Draws an answer on a terminal while it streams."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._blocks = Blocks()
        self._live: Live | None = None
        self._next = 0.0
        self._width = console.width
        self._separated = True

    def feed(self, text: str) -> None:
        """Show more text."""
        for block in self._blocks.feed(text):
            self._settle(block)
        if self._blocks.open.strip():
            self._draw()

    def finish(self) -> None:
        """The answer has ended, or will not go on."""
        for block in self._blocks.finish():
            self._settle(block)
        self._close()

    def _settle(self, block: str) -> None:
        self._close()
        self._separate()
        self._separated = False
        lines = _lines(self._console, self._console.options, block)
        self._console.print(Segments([segment for line in lines for segment in (*line, Segment.line())]), end="")

    def _separate(self) -> None:
        """A blank line before each block but the first."""
        if not self._separated:
            self._console.print()
            self._separated = True

    def _draw(self) -> None:
        if self._live is not None and time.monotonic() < self._next:
            return
        if self._live is not None and self._console.width != self._width:
            self._live.transient = False  # the terminal has moved the lines: they cannot be found again to be erased
            self._close()
        self._width = self._console.width
        begun = time.monotonic()
        tail = _Tail(self._blocks.open)
        if self._live is None:
            self._separate()
            self._live = Live(tail, console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()
        self._live.update(tail, refresh=True)
        ended = time.monotonic()
        self._next = ended + max(_FRAME, _SHARE * (ended - begun))

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
