"""A loss curve in the characters of a terminal: single values, their moving average, evaluations. Knows no training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.text import Text

_MOST = 2048
"""Values kept; where there are more, neighbours are put together."""
_WEIGHT = 0.9
_LABEL = 6
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille's dots by row and column of a cell."""
RAW, SMOOTH, POINT = "dim cyan", "bold cyan", "bold yellow"


@dataclass
class Curve:
    """Values by step, in bounded space.

    Attributes:
        steps, raw, smooth: equally many: a step, the value there, and its moving average, with the start-up bias taken
            out (Kingma & Ba 2015, section 3).
        points: step and value of each evaluation.
    """

    steps: list[int] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    smooth: list[float] = field(default_factory=list)
    points: list[tuple[int, float]] = field(default_factory=list)
    _mean: float = 0.0
    _norm: float = 0.0

    def add(self, step: int, value: float) -> None:
        """The value of the next step."""
        self._mean = _WEIGHT * self._mean + (1 - _WEIGHT) * value
        self._norm = _WEIGHT * self._norm + (1 - _WEIGHT)
        self.steps.append(step)
        self.raw.append(value)
        self.smooth.append(self._mean / self._norm)
        if len(self.steps) > _MOST:
            self.steps = self.steps[1::2]
            self.smooth = self.smooth[1::2]
            self.raw = [(one + two) / 2 for one, two in zip(self.raw[::2], self.raw[1::2], strict=False)]

    @property
    def smoothed(self) -> float:
        """The moving average at present."""
        return self._mean / self._norm if self._norm else float("nan")


def draw(curve: Curve, width: int, height: int, *, ascii_only: bool = False) -> list[Text]:
    """`height` lines of `width` cells with the value axis on the left; empty where there is no room or nothing to see.

    Args:
        ascii_only: for terminals that have no braille.
    """
    columns = width - _LABEL - 1
    if columns < 8 or height < 2 or not curve.steps:
        return []
    low, high = _range(curve)
    first = min(curve.steps[0], *(step for step, _ in curve.points)) if curve.points else curve.steps[0]
    last = max(curve.steps[-1], *(step for step, _ in curve.points)) if curve.points else curve.steps[-1]
    fine, tall = (columns, height) if ascii_only else (2 * columns, 4 * height)

    def place(step: float, value: float) -> tuple[int, int]:
        x = round((step - first) / max(last - first, 1) * (fine - 1))
        y = round((high - min(max(value, low), high)) / (high - low) * (tall - 1))
        return x, y

    raw = {place(step, value) for step, value in zip(curve.steps, curve.raw, strict=True)}
    smooth = set(_line([place(step, value) for step, value in zip(curve.steps, curve.smooth, strict=True)]))
    points = {
        (x * columns // fine, y * height // tall) for x, y in (place(step, value) for step, value in curve.points)
    }
    lines = []
    for row in range(height):
        label = _label(high) if row == 0 else _label(low) if row == height - 1 else ""
        line = Text(f"{label:>{_LABEL}} ", no_wrap=True)
        for column in range(columns):
            if (column, row) in points:
                line.append("o" if ascii_only else "◆", POINT)
            elif ascii_only:
                here = (column, row)
                line.append("*" if here in smooth else "." if here in raw else " ", SMOOTH if here in smooth else RAW)
            else:
                line.append(*_cell(column, row, raw, smooth))
        lines.append(line)
    return lines


def _cell(column: int, row: int, raw: set[tuple[int, int]], smooth: set[tuple[int, int]]) -> tuple[str, str]:
    bits, is_smooth = 0, False
    for down, pair in enumerate(_DOTS):
        for right, bit in enumerate(pair):
            at = 2 * column + right, 4 * row + down
            if at in smooth:
                bits, is_smooth = bits | bit, True
            elif at in raw:
                bits |= bit
    return (chr(0x2800 + bits) if bits else " "), SMOOTH if is_smooth else RAW


def _range(curve: Curve) -> tuple[float, float]:
    """From the lowest to the highest value worth seeing: a few outliers of single steps must not flatten the rest."""
    ordered = sorted(curve.raw)
    spare = len(ordered) // 50
    shown = [ordered[spare], ordered[-1 - spare], min(curve.smooth), max(curve.smooth)]
    shown += [value for _, value in curve.points]
    low, high = min(shown), max(shown)
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _line(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every dot on the way from each place to the next."""
    dots = list(places[:1])
    for (x, y), (to_x, to_y) in pairwise(places):
        count = max(abs(to_x - x), abs(to_y - y))
        dots += [(x + round((to_x - x) * at / count), y + round((to_y - y) * at / count)) for at in range(1, count + 1)]
    return dots


def _label(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0e}"
