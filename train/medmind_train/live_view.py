"""What a person sees while training goes on: a live view on a terminal, a line now and then anywhere else.

Knows lines of metrics and screens; no training.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.text import Text

from medmind import console as terminal
from medmind.console import human_bytes
from medmind_train import plot
from medmind_train.metrics import StepMetrics

_NOTE_SECONDS = 10.0
"""How often progress is told where there is no terminal to draw it on."""
_TALLEST = 16
"""Lines of the curve at most; on a small screen, what the numbers leave."""
_REFRESHES = 4
"""A second."""


class View(Protocol):
    """What the training loop tells."""

    def step(self, line: StepMetrics) -> None:
        """A step is done."""
        ...

    def progress(
        self, description: str, total: float | None, unit: str = "it"
    ) -> AbstractContextManager[Callable[..., None]]:
        """As `console.progress`, for what is done between two steps."""
        ...


@contextmanager
def display(total: int, past: Sequence[dict[str, Any]] = (), console: Console = terminal.err) -> Iterator[View]:
    """Show a run of `total` steps; `past` are the lines of metrics.jsonl that it goes on from."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(total, first=int(past[-1]["step"]) if past else 0)
        return
    view = LiveView(total, past)
    with _Resizing(
        get_renderable=lambda: view, console=console, refresh_per_second=_REFRESHES, vertical_overflow="crop"
    ):
        yield view


class _Lines:
    """Plain lines on stderr: the first step, the last, evaluations, and one every few seconds."""

    progress = staticmethod(terminal.progress)

    def __init__(self, total: int, first: int) -> None:
        self._total = total
        self._first = first
        self._began = self._told = time.monotonic()

    def step(self, line: StepMetrics) -> None:
        now = time.monotonic()
        ends = line.step in (self._first + 1, self._total)
        if not ends and line.validation_loss is None and now - self._told < _NOTE_SECONDS:
            return
        self._told = now
        left = (now - self._began) / (line.step - self._first) * (self._total - line.step)
        parts = [f"step {line.step}/{self._total}", f"loss {line.loss:.3f}"]
        if line.validation_loss is not None:
            parts.append(f"validation loss {line.validation_loss:.4f} ± {line.validation_error:.4f}")
        parts += [f"{line.tokens_per_s:,.0f} tokens/s", f"{human_bytes(line.memory)} peak", f"{_clock(left)} left"]
        terminal.note(" · ".join(parts))


class LiveView:
    """The screen of a run; as a renderable of rich, as wide and high as there is room for."""

    def __init__(self, total: int, past: Sequence[dict[str, Any]] = ()) -> None:
        self._total = total
        self._curve = plot.Curve()
        self._best: tuple[int, float] | None = None
        self._line: StepMetrics | None = None
        self._pace: float | None = None
        self._tokens = self._padded = 0.0
        self._work = ""
        for document in past:
            self.step(StepMetrics.of(document))

    def step(self, line: StepMetrics) -> None:
        """Take in a step; drawn at the next refresh."""
        before = self._line
        self._curve.add(line.step, line.loss)
        took = line.seconds - before.seconds if before else line.seconds
        self._pace = took if self._pace is None else 0.9 * self._pace + 0.1 * took
        self._tokens += line.tokens
        self._padded += line.tokens / (1 - line.padding)
        if line.validation_loss is not None:
            self._curve.points.append((line.step, line.validation_loss))
            if self._best is None or line.validation_loss < self._best[1]:
                self._best = line.step, line.validation_loss
        self._line = line

    @contextmanager
    def progress(self, description: str, total: float | None, unit: str = "it") -> Iterator[Callable[..., None]]:
        """Show what is done between two steps in the view itself."""
        done = 0.0

        def advance(amount: float = 1, status: str = "") -> None:
            nonlocal done
            done += amount
            self._work = f"{description} {done:,.0f}/{total:,.0f} {unit}" if total else f"{description} {done:,.0f}"

        advance(0)
        try:
            yield advance
        finally:
            self._work = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, rows = max(options.max_width, 1), max(console.size.height - 1, 1)
        plain = options.ascii_only
        numbers = _flow(self._numbers(plain), width, plain)
        head = self._head(width, plain)
        room = rows - 1 - len(numbers)
        with_axis = room >= 5
        curve = plot.draw(self._curve, width, min(_TALLEST, rows // 2, room - with_axis), ascii_only=plain)
        if curve and with_axis:
            curve.append(self._axis(width, plain))
        for line in [head, *curve, *numbers][:rows]:
            line.truncate(width, overflow="crop" if plain else "ellipsis")
            yield line

    def _head(self, width: int, plain: bool) -> Text:
        step = self._line.step if self._line else 0
        done = f"step {step:,}/{self._total:,} "
        left = f" {step / self._total:.0%}"
        if self._pace is not None:
            left += f" {'-' if plain else '·'} {_clock(self._pace * (self._total - step))} left"
        room = min(width - len(done) - len(left), 60)
        filled = round(room * step / self._total)
        full, rest = ("#", ".") if plain else ("━", "─")
        return Text.assemble(
            (done, "bold"), (full * filled, "green"), (rest * max(room - filled, 0), "dim"), left, no_wrap=True
        )

    def _axis(self, width: int, plain: bool) -> Text:
        """Under the curve: what is drawn how, between the first step and the last."""
        first, last = f"{self._curve.steps[0]:,}", f"{self._curve.steps[-1]:,}"
        marks = [("loss", "." if plain else "⠂", plot.RAW), ("smoothed", "*" if plain else "⠒", plot.SMOOTH)]
        if self._curve.points:
            marks.append(("validation", "o" if plain else "◆", plot.POINT))
        legend = Text("  ").join(Text.assemble((mark, style), f" {name}") for name, mark, style in marks)
        room = width - 7 - len(first) - len(last)
        if legend.cell_len > room:
            legend = Text("")
        before = max(room - legend.cell_len, 0) // 2
        after = max(room - legend.cell_len - before, 0)
        return Text.assemble(" " * 7, first, " " * before, legend, " " * after, last, no_wrap=True)

    def _numbers(self, plain: bool) -> list[str]:
        line = self._line
        if line is None:
            return [self._work or "the first step is on its way"]
        about = "+-" if plain else "±"
        told = [f"loss {line.loss:.3f}", f"smoothed {self._curve.smoothed:.3f}"]
        if self._curve.points and self._best:
            told.append(f"validation {self._curve.points[-1][1]:.3f}")
            if line.validation_error is not None:
                told[-1] += f" {about} {line.validation_error:.3f}"
            told.append(f"best {self._best[1]:.3f} at {self._best[0]:,}")
        told += [
            f"{line.tokens_per_s:,.0f} tokens/s",
            f"{human_bytes(line.memory)} peak",
            f"padding {1 - self._tokens / self._padded:.1%}",
            f"lr {line.lr:.2e}",
        ]
        if line.grad_norm is not None:
            told.append(f"gradient {line.grad_norm:.3g}")
        # What is done between two steps takes a place of its own, so that nothing else moves.
        return [*told, f"epoch {line.epoch:.2f}", self._work or f"{_clock(line.seconds)} in training"]


class _Resizing(Live):
    """A live display that begins on a clean screen when the terminal changes its size.

    The terminal has wrapped or cut the old lines by then, and nobody knows how many there are to go up and wipe.
    """

    _size: Any = None

    def refresh(self) -> None:
        """Draw again."""
        size = self.console.size
        if self._size not in (None, size):
            self.console.control(Control.clear(), Control.home())
        self._size = size
        super().refresh()


def _flow(fields: Sequence[str], width: int, plain: bool) -> list[Text]:
    """Fields one behind the other, on as many lines as it takes; none is broken."""
    between = " - " if plain else " · "
    lines: list[str] = []
    for one in fields:
        if lines and len(lines[-1]) + len(between) + len(one) <= width:
            lines[-1] += between + one
        else:
            lines.append(one)
    return [Text(line, no_wrap=True) for line in lines]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
